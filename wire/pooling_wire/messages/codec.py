"""Codec of one message type that carries tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from pooling_wire.payloads.message_cache import MessageCache, Template
from pooling_wire.payloads.parsing import Buffer, Parsed, parse
from pooling_wire.payloads.tensors import Parts
from pooling_wire.shared_memory.places import NO_PLACES, NO_REGIONS, Places, Regions

Value = TypeVar("Value")
Decoded = TypeVar("Decoded")


class MessageCodec(Generic[Value, Decoded]):
    """Codec of one message type: encodes a `Value` to bytes and decodes bytes to a `Decoded`.

    Messages are bytes, not objects of the generated class: the handler of a call parses them,
    because it can reject a malformed message with INVALID_ARGUMENT. The transport cannot.

    Args:
        type_: generated class of the message.
        parts: returns the parts of a message, given the value and the locations of its tensors in
            shared memory.
        from_parsed: returns the decoded value of a parsed message.
        template_of: see `MessageCache`.

    Attributes:
        parts: as above.
        from_parsed: as above.
        cache: the most recent headers of such messages.
    """

    def __init__(
        self,
        type_: type[Message],
        parts: Callable[[Value, Places], Parts],
        from_parsed: Callable[[Parsed[Any]], Decoded],
        template_of: Callable[[Decoded], Template[Decoded] | None],
    ) -> None:
        self.type = type_
        self.parts = parts
        self.from_parsed = from_parsed
        self.cache = MessageCache(type_, template_of)

    def encode(self, value: Value, places: Places = NO_PLACES) -> bytes:
        """Return the bytes of a message. Of a tensor with a location, only the location is sent."""
        return b"".join(self.parts(value, places))

    def decode(self, data: Buffer, regions: Regions = NO_REGIONS) -> Decoded:
        """Return the decoded message; its tensors are read-only views.

        Raises:
            PoolingError: the message is invalid.
        """
        decoded = self.cache.get(data, 0, len(data))
        if decoded is None:
            decoded = self.from_parsed(parse(self.type, data)._replace(regions=regions))
            self.cache.put(data, 0, len(data), decoded)
        return decoded
