"""Cache of decoded message headers: repeated messages skip protobuf parsing.

The header of a message is all of it except the elements of its tensors; ours take about 60 bytes.
Training sends the same few layers again and again, so messages that differ only in their elements
are common. Comparing headers takes a tenth of the time of decoding them.

Equal header bytes mean an equal header: the layout of a message, that is where the elements of its
tensors begin and end, follows from the header alone. So a message of the same size, with the same
bytes in the same header positions, has the same fields and its elements in the same positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

from pooling_wire.payloads.parsing import Buffer, payload_spans

T = TypeVar("T")
Array = NDArray[Any]

MAX_HEADER_BYTES = 512
MAX_HEADERS_PER_SIZE = 4
MAX_SIZES = 128


class Template(NamedTuple, Generic[T]):
    """Recipe to rebuild a decoded message with other tensors.

    Attributes:
        make: returns the decoded message, given its tensors by name.
        tensors: the tensors of the message that was decoded; None for an absent one.
    """

    make: Callable[..., T]
    tensors: Mapping[str, Array | None]


class _CachedTensor(NamedTuple):
    name: str
    begin: int  # position of its elements in the message
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class _CachedHeader(NamedTuple, Generic[T]):
    pieces: tuple[tuple[int, int, bytes], ...]  # begin and end in the message, and the bytes there
    tensors: tuple[_CachedTensor, ...]
    make: Callable[..., T]


class MessageCache(Generic[T]):
    """Headers of the most recent messages of one type, each with what it was decoded to.

    Thread-safe. At most `MAX_SIZES` message sizes, `MAX_HEADERS_PER_SIZE` headers of each size, and
    `MAX_HEADER_BYTES` per header are cached.

    Args:
        type_: the type of the messages.
        template_of: returns the template of a decoded message, or None if it must not be cached.
    """

    def __init__(
        self, type_: type[Message], template_of: Callable[[T], Template[T] | None]
    ) -> None:
        self._type, self._template_of = type_, template_of
        self._by_size: dict[int, tuple[_CachedHeader[T], ...]] = {}

    def __len__(self) -> int:
        """Return the number of cached headers."""
        return sum(map(len, tuple(self._by_size.values())))

    def clear(self) -> None:
        """Remove all headers."""
        self._by_size.clear()

    def get(self, data: Buffer, begin: int, end: int) -> T | None:
        """Return the message at `data[begin:end]` if its header is cached.

        Its tensors are read-only views of `data`.
        """
        if not isinstance(data, bytes):
            data = memoryview(data).toreadonly().cast("B")
        for pieces, tensors, make in self._by_size.get(end - begin, ()):
            for start, stop, piece in pieces:
                if data[begin + start : begin + stop] != piece:
                    break
            else:
                arrays = {}
                for name, start, dtype, shape in tensors:
                    arrays[name] = np.ndarray(shape, dtype, data, begin + start)
                return make(**arrays)
        return None

    def put(self, data: Buffer, begin: int, end: int, decoded: T) -> None:
        """Cache the header of the message at `data[begin:end]`, which was decoded to `decoded`."""
        template = self._template_of(decoded)
        spans = None if template is None else payload_spans(self._type, data, begin, end)
        if template is None or spans is None:
            return
        tensors = {name: array for name, array in template.tensors.items() if array is not None}
        if spans.keys() != tensors.keys():  # a tensor is empty, or in shared memory
            return
        header = _CachedHeader(
            _between(data, begin, end, sorted(spans.values())),
            tuple(
                _CachedTensor(name, spans[name][0] - begin, array.dtype, array.shape)
                for name, array in tensors.items()
            ),
            template.make,
        )
        if sum(stop - start for start, stop, _ in header.pieces) > MAX_HEADER_BYTES:
            return
        if len(self._by_size) >= MAX_SIZES:
            self._by_size.clear()
        others = self._by_size.get(end - begin, ())
        self._by_size[end - begin] = (header, *others[: MAX_HEADERS_PER_SIZE - 1])


def _between(
    data: Buffer, begin: int, end: int, spans: list[tuple[int, int]]
) -> tuple[tuple[int, int, bytes], ...]:
    """Return the bytes outside of all spans, each part with its position relative to `begin`."""
    starts = [begin, *(stop for _, stop in spans)]
    stops = [*(start for start, _ in spans), end]
    return tuple(
        (start - begin, stop - begin, bytes(data[start:stop]))
        for start, stop in zip(starts, stops, strict=True)
        if start < stop
    )
