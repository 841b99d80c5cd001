"""The methods of the service that carry tensors: one row each, with its names and codecs.

Server, clients and tests iterate over `METHODS`. To add a method, add it to the .proto, add its row
here with the codecs of its messages (see `messages/forward.py`), and, unless the engine's `run`
computes its calls, add its handler to the server.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message
from numpy.typing import NDArray

from pooling_engine import (
    BackwardCall,
    ForwardAllCall,
    ForwardCall,
    ForwardResult,
    PoolingError,
)
from pooling_wire.messages import stream_items
from pooling_wire.messages.backward import BACKWARD_REQUEST, BACKWARD_RESPONSE
from pooling_wire.messages.codec import MessageCodec
from pooling_wire.messages.forward import FORWARD_REQUEST, FORWARD_RESPONSE
from pooling_wire.messages.stream_items import StreamItem
from pooling_wire.payloads.parsing import Buffer
from pooling_wire.shared_memory.places import NO_PLACES, NO_REGIONS, Placed, Places, Regions
from pooling_wire.v1 import pooling_pb2 as pb

Array = NDArray[Any]
Call = TypeVar("Call")
Result = TypeVar("Result")

SERVICE_NAME = "pooling.v1.PoolingService"


@dataclass(frozen=True, slots=True, eq=False)
class Method(Generic[Call, Result]):
    """A method of the service and its stream: names and codecs.

    Attributes:
        name: name of the unary method.
        size_field: field of the request that determines the sizes of a call.
        request: codec of the request.
        response: codec of the response.
        item: generated class of an item of the stream.
        reply: generated class of the reply to an item.
        path: path of the unary method in a gRPC channel.
        stream_name: name of the stream method.
        stream_path: path of the stream method in a gRPC channel.
    """

    name: str
    size_field: str
    request: MessageCodec[Call, Placed[Call]]
    response: MessageCodec[Result, Result]
    item: type[Message]
    reply: type[Message]

    path: str = field(init=False)
    stream_name: str = field(init=False)
    stream_path: str = field(init=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "path", path_of(self.name))
        put(self, "stream_name", f"{self.name}Stream")
        put(self, "stream_path", path_of(self.stream_name))

    def encode_request(self, call: Call, places: Places = NO_PLACES) -> bytes:
        """Return the bytes of a request.

        Args:
            call: the call.
            places: locations in shared memory, by name: of tensors of the call, which then are not
                sent, and of results, which the server then writes there.
        """
        return self.request.encode(call, places)

    def decode_request(self, data: Buffer, regions: Regions = NO_REGIONS) -> Placed[Call]:
        """Return the call in a request; its tensors are read-only views.

        Args:
            data: the request.
            regions: regions of shared memory that the client may use.

        Raises:
            InvalidSpecError, InvalidTensorError, UnsupportedError: the request is invalid.
        """
        return self.request.decode(data, regions)

    def encode_response(self, result: Result, places: Places = NO_PLACES) -> bytes:
        """Return the bytes of a response.

        Args:
            result: the result.
            places: locations in shared memory of the arrays that were written there; they are not
                sent.
        """
        return self.response.encode(result, places)

    def decode_response(self, data: Buffer, regions: Regions = NO_REGIONS) -> Result:
        """Return the result in a response; its arrays are read-only views.

        Raises:
            InvalidTensorError: the response is malformed.
        """
        return self.response.decode(data, regions)

    def encode_item(self, id_: int, call: Call, timeout_us: int = 0) -> bytes:
        """Return the bytes of a stream item.

        Args:
            id_: number that the reply repeats.
            call: the call.
            timeout_us: microseconds that the client waits for the reply; 0 for no limit.
        """
        return stream_items.encode_item(self.request, id_, call, timeout_us)

    def item_of(self, id_: int, request: bytes, timeout_us: int = 0) -> bytes:
        """Return the bytes of a stream item that contains an encoded request."""
        return stream_items.item_of(id_, [request], timeout_us)

    def decode_item(self, data: Buffer, regions: Regions = NO_REGIONS) -> StreamItem[Call]:
        """Return a stream item: its id, its call or why it is invalid, and its timeout.

        It raises no `PoolingError`, because the reply to the item carries the error. The id is 0 if
        it cannot be read.

        Args:
            data: the item.
            regions: regions of shared memory that the client may use.
        """
        return stream_items.decode_item(self.item, self.request, data, regions)

    def encode_reply(
        self, id_: int, result: Result | PoolingError, places: Places = NO_PLACES
    ) -> bytes:
        """Return the bytes of the reply to a stream item: a result or an error.

        Args:
            id_: number of the item.
            result: the result or the error.
            places: as for `encode_response`.
        """
        return stream_items.encode_reply(self.reply, self.response, id_, result, places)

    def decode_reply(
        self, data: Buffer, regions: Regions = NO_REGIONS
    ) -> tuple[int, Result | PoolingError]:
        """Return the id of the reply to a stream item, and the result or the error of the item.

        Raises:
            InvalidTensorError: the reply is malformed.
        """
        return stream_items.decode_reply(self.reply, self.response, data, regions)


def message_class(name: str) -> type[Message]:
    """Return the generated class of a message, such as "ForwardRequest"."""
    class_: type[Message] = getattr(pb, name)
    return class_


def path_of(name: str) -> str:
    """Return the path of a method in a gRPC channel."""
    return f"/{SERVICE_NAME}/{name}"


FORWARD: Method[ForwardCall | ForwardAllCall, ForwardResult | tuple[ForwardResult, ...]] = Method(
    "Forward",
    "input",
    FORWARD_REQUEST,
    FORWARD_RESPONSE,
    pb.ForwardStreamRequest,
    pb.ForwardStreamResponse,
)
BACKWARD: Method[BackwardCall, Array] = Method(
    "Backward",
    "input_shape",
    BACKWARD_REQUEST,
    BACKWARD_RESPONSE,
    pb.BackwardStreamRequest,
    pb.BackwardStreamResponse,
)
METHODS = (FORWARD, BACKWARD)
PLAIN_METHODS = GET_SERVER_INFO, GET_PLAN = "GetServerInfo", "GetPlan"  # unary, without tensors


def encode_forward_request(call: ForwardCall) -> bytes:
    """Return the bytes of a ForwardRequest, to send over a gRPC channel without `pooling_client`.

    Args:
        call: the checked arguments of the call.

    Returns:
        The message for `FORWARD.path`. `FORWARD.decode_response` decodes the reply;
        `BACKWARD` has the same methods for gradients.
    """
    return FORWARD.encode_request(call)
