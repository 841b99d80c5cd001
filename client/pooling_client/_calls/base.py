"""Base classes of forward and backward calls: a call as one message, and a call in chunks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from pooling_client._copies import copy_into
from pooling_client._cutting.chunks import Chunk
from pooling_client._limits import SHARED_STREAM_BYTES, RequestLimits, load
from pooling_client._streams.backlog import Reply
from pooling_engine import BackwardCall, ForwardCall, InternalError, PoolingError
from pooling_wire import Method

Array = NDArray[Any]
Sent = TypeVar("Sent")
Call = TypeVar("Call", bound=ForwardCall | BackwardCall)
Result = TypeVar("Result")


class PreparedMessage(ABC, Generic[Sent, Result]):
    """A call as one message. Immutable.

    Attributes:
        method: names and codecs of the method.
        call: the checked arguments.
        total_bytes: size of the tensors of the request or of the reply, whichever is larger. The
            progress counts up to it.
    """

    method: ClassVar[Method[Any, Any]]

    call: Sent
    total_bytes: int

    def request(self) -> bytes:
        """Encode the whole call as one request."""
        return self.method.encode_request(self.call)

    def result(self, reply: bytes) -> Result:
        """Decode the reply to `request`."""
        return self.copied(self.method.decode_response(reply))

    @property
    def is_small(self) -> bool:
        """True if the call may share a stream: it delays the calls behind it only shortly."""
        return self.total_bytes <= SHARED_STREAM_BYTES and self.load <= 1

    def item(self, id_: int, timeout_us: int = 0) -> bytes:
        """Encode the whole call as one item of a stream."""
        return self.method.encode_item(id_, self.call, timeout_us)

    def item_result(self, reply: bytes) -> Result | PoolingError:
        """Decode the reply to `item`: the result, or the error of the call."""
        _, result = self.method.decode_reply(reply)
        return result if isinstance(result, PoolingError) else self.copied(result)

    def shared_result(self, reply: bytes, id_: int) -> Result:
        """Decode the reply to an item of a shared stream.

        Raises:
            PoolingError: the call failed, or the reply belongs to another item.
        """
        return self.copied(checked_reply(self.method.decode_reply(reply), id_))

    @property
    @abstractmethod
    def load(self) -> float:
        """Work of the call as a share of the most that may share a stream."""

    @abstractmethod
    def copied(self, result: Result) -> Result:
        """Copy a result, whose arrays are views of a reply, into arrays of the caller."""


class PreparedCall(PreparedMessage[Call, Result]):
    """A call, which may be cut into chunks, and the array of the caller for its result. Immutable.

    Attributes:
        call_type: class of the call.
        joins: True if calls can share a message.
        out: array of the caller for the output or the input gradient, or None.
        has_positions: True if the call sends or returns indices as int64 positions.
    """

    call_type: ClassVar[type]
    joins: ClassVar[bool] = False

    has_positions: bool

    def __init__(self, call: Call, out: Array | None = None) -> None:
        self.call = call
        self.out = out

    @property
    def load(self) -> float:
        return load(self.call)

    @abstractmethod
    def tensors(self) -> dict[str, Array]:
        """Return the tensors of the request, by their names in the contract."""

    @abstractmethod
    def with_tensors(self, chunk: Chunk, tensors: Mapping[str, Array]) -> Call:
        """Return the call of a chunk, with these tensors."""

    @abstractmethod
    def split(self, max_bytes: int, max_row_band_bytes: int) -> Iterator[Chunk]:
        """Yield the chunks of the call: see `pooling_client._cutting.chunks`."""

    @abstractmethod
    def chunked(self, limits: RequestLimits) -> ChunkedCall[Call, Result]:
        """Return the call in chunks that respect the limits of the server."""

    def can_join(self, other: object) -> bool:
        """Return whether this call and another one can be sent as one call."""
        return False

    def joined(self, calls: Sequence[Self]) -> Self:
        """Return calls that can join this one, and this one first, as one call."""
        raise NotImplementedError

    def parts(self, result: Result, calls: Sequence[Self]) -> Iterator[Result]:
        """Yield the result of each call that was joined."""
        raise NotImplementedError

    @abstractmethod
    def collected(self, results: Mapping[str, Array], reply: Result) -> Result:
        """Return the result of a call whose results were written to shared memory.

        Args:
            results: arrays in shared memory, by their names in the contract.
            reply: the decoded reply to the last request.
        """


class ChunkedCall(ABC, Generic[Call, Result]):
    """A call in chunks. It holds the arrays that the results of the chunks are written to.

    Args:
        prepared: the call.
        limits: limits of the server.
        elements: size of the result; the progress of a chunk is its share of them.
    """

    def __init__(
        self, prepared: PreparedCall[Call, Result], limits: RequestLimits, elements: int
    ) -> None:
        self._prepared = prepared
        self._limits = limits
        self._elements = elements

    def requests(self) -> Iterator[tuple[Chunk, bytes]]:
        """Yield the chunks with their requests."""
        prepared, limits = self._prepared, self._limits
        tensors = prepared.tensors()
        chunks = prepared.split(limits.chunk_bytes, limits.row_band_bytes)
        for id_, chunk in enumerate(chunks):
            cut = {name: self._cut(name, tensor, chunk) for name, tensor in tensors.items()}
            yield chunk, prepared.method.encode_item(id_, prepared.with_tensors(chunk, cut))

    def _cut(self, name: str, tensor: Array, chunk: Chunk) -> Array:
        return tensor[chunk.box(name)]

    def receive(self, chunk: Chunk, reply: Reply) -> int:
        """Write the result of a chunk; return how many bytes of the total are done with it.

        Raises:
            PoolingError: the server rejected the chunk. Coordinates in the text are relative to
                the start of the chunk, which the text states.
        """
        assert isinstance(reply, bytes)
        _, result = self._prepared.method.decode_reply(reply)
        if isinstance(result, PoolingError):
            raise _located(result, chunk)
        return self._write(chunk, result) * self._prepared.total_bytes // self._elements

    @abstractmethod
    def _write(self, chunk: Chunk, result: Result) -> int:
        """Write the result of a chunk; return the number of elements."""

    @abstractmethod
    def result(self) -> Result:
        """Return the result, after the last chunk."""


def _located(error: PoolingError, chunk: Chunk) -> PoolingError:
    """Return the error of a chunk with the start of the chunk, unless that is the origin."""
    start = tuple(side.start or 0 for side in chunk.outputs)
    if not any(start):
        return error
    text = f"{error} (in a chunk of the call; coordinates are counted from {start} of the output)"
    return type(error)(text, field=error.field, facts=error.facts)


def checked_reply(reply: tuple[int, Any | PoolingError], id_: int) -> Any:
    """Return the result in a decoded reply to an item of a stream.

    Raises:
        PoolingError: the call failed, or the reply belongs to another item.
    """
    actual, result = reply
    if isinstance(result, PoolingError):
        raise result
    if actual != id_:
        raise InternalError(f"the server sent the reply to item {actual} in place of {id_}")
    return result


def copied(view: Array, out: Array | None) -> Array:
    """Copy a view of a reply into `out` or a new array: the only copy of a result."""
    if out is None:
        return view.copy()
    np.copyto(out, view)
    return out


def collected(array: Array, out: Array | None) -> Array:
    """Return an array in shared memory, copied if the caller wants the result in `out`."""
    if out is None or out is array:
        return array
    copy_into(out, array)
    return out
