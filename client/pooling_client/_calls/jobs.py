"""What both clients do before and after the wire: check, cut and encode; decode and put together.

A job is one call, `_forward_job.ForwardJob` or `_backward_job.BackwardJob`. Small ones are one
message there and one back; large ones are pieces on a stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from pooling_client._copies import copy_into
from pooling_client._cutting.chunks import MAX_ROW_BAND_BYTES, Chunk
from pooling_client._limits import UNKNOWN, RequestLimits
from pooling_client._shared_memory import Placing, SharedArrays
from pooling_engine import (
    InvalidSpecError,
    PoolingError,
    PoolPlan,
    PoolSpec,
)
from pooling_wire.shared_memory import Places

Array = NDArray[Any]
Result = TypeVar("Result")

CHUNK_BYTES = 4 << 20  # tensors of one message on a stream
STREAM_BYTES = 8 << 20  # a larger request or reply goes by stream
CHUNK_WINDOW = 4  # chunks of one call without a reply
MANY_WINDOW = 16  # calls of `forward_many` without a reply


class Job(Generic[Result]):
    """One call, checked.

    Attributes:
        total_bytes: of the tensors that the pieces hold, for the progress.
    """

    method: str
    stream_method: str
    spec: PoolSpec
    plan: PoolPlan
    total_bytes: int
    _places: Places

    def should_ask(self, sizes: RequestLimits) -> bool:
        """Whether to ask the server what it takes first: small calls do not pay for it."""
        return sizes is UNKNOWN and self.total_bytes > STREAM_BYTES

    def is_large(self, sizes: RequestLimits) -> bool:
        """Whether it goes by stream, to a server that takes these sizes."""
        return self.total_bytes > min(STREAM_BYTES, sizes.message_bytes)

    def pieces(self, slab_bytes: int, band_bytes: int) -> Iterator[Chunk]:
        """The pieces of the call: see `pooling_client._cutting.chunks`."""
        raise NotImplementedError

    def _pieces_for(self, sizes: RequestLimits) -> Iterator[Chunk]:
        most = max(1, sizes.message_bytes)
        return self.pieces(min(CHUNK_BYTES, most), min(MAX_ROW_BAND_BYTES, most))

    def slabs(self, sizes: RequestLimits) -> list[Chunk] | None:
        """The pieces of a call in shared memory; none where it goes whole, None where it cannot.

        Every piece is whole planes: only these lie where the whole call's results do.
        """
        if max(self.plan.input_bytes, self.plan.output_bytes) <= sizes.tensor_bytes:
            return []
        pieces = list(self.pieces(sizes.tensor_bytes, sizes.tensor_bytes))
        return pieces if all(piece.spec is self.spec for piece in pieces) else None

    def request(self) -> bytes:
        """The whole call as one request."""
        raise NotImplementedError

    def result(self, reply: bytes) -> Result:
        """The result of the whole call, in arrays that the caller owns."""
        raise NotImplementedError

    def share(self, shared: SharedArrays, sizes: RequestLimits) -> bool:
        """Brings the whole call into shared memory; returns whether there is room for all of it.

        From then on `request` and `shared_result` are about what is there.
        """
        self._slabs = self.slabs(sizes)
        return self._slabs is not None and self._share(shared)

    def _share(self, shared: SharedArrays) -> bool:
        raise NotImplementedError

    def shared_requests(self, shared: SharedArrays) -> list[bytes]:
        """The requests of a call in shared memory: one, or those of its slabs."""
        if not self._slabs:
            return [self.request()]
        return [self._shared_slab(slab, Placing(shared)) for slab in self._slabs]

    def _shared_slab(self, slab: Chunk, placing: Placing) -> bytes:
        raise NotImplementedError

    def unshare(self) -> None:
        """Makes `request` send everything again."""
        raise NotImplementedError

    def shared_result(self, reply: bytes, shared: SharedArrays) -> Result:
        """The result of a call that is in shared memory, in arrays that the caller owns.

        Args:
            reply: the reply to the last request.
        """
        raise NotImplementedError

    def item(self, id_: int) -> bytes:
        """The whole call as one item of a stream."""
        raise NotImplementedError

    def item_result(self, reply: bytes) -> Result | PoolingError:
        """The result of the whole call, or what refused it, from the reply to its item."""
        raise NotImplementedError

    def requests(self, sizes: RequestLimits) -> Iterator[tuple[Chunk, bytes | PoolingError]]:
        """The pieces of the call, each with its request; made one by one."""
        raise NotImplementedError

    def place(self, piece: Chunk, reply: bytes | PoolingError) -> int:
        """Writes the reply to a piece into its place; returns how many bytes of the total that was.

        Raises:
            PoolingError: the piece was refused.
        """
        raise NotImplementedError

    def assembled(self) -> Result:
        """The result, once every piece is in place."""
        raise NotImplementedError


def refuse_other(call: object, class_: type) -> None:
    """Refuses what is no call of a class, among many.

    Raises:
        InvalidSpecError: it is of another class.
    """
    if not isinstance(call, class_):
        raise InvalidSpecError(
            f"calls has an item of type {type(call).__name__}; each must be a {class_.__name__}",
            field="calls",
        )


def item_of(
    id_: int, call: Any, job_of: Callable[[Any], Job[Result]]
) -> tuple[Job[Result] | None, bytes | PoolingError]:
    """The job of a call and its item, or what is wrong with the call."""
    try:
        job = job_of(call)
        return job, job.item(id_)
    except PoolingError as error:
        return None, error


def outcome_of(
    job: Job[Result] | None, reply: bytes | PoolingError, return_exceptions: bool
) -> Result | PoolingError:
    """Return the result of a call, or its error if errors are to be returned.

    Raises:
        PoolingError: the call failed, and errors are to be raised.
    """
    outcome: Result | PoolingError
    if job is None or isinstance(reply, PoolingError):
        assert isinstance(reply, PoolingError)
        outcome = reply
    else:
        outcome = job.item_result(reply)
    if isinstance(outcome, PoolingError) and not return_exceptions:
        raise outcome
    return outcome


def unwrapped(piece: Chunk, reply: bytes | PoolingError, decode: Any) -> Any:
    """The result in a reply.

    Raises:
        PoolingError: the piece was refused; places in the text are counted from its beginning.
    """
    _, result = decode(reply)
    if isinstance(result, PoolingError):
        start = tuple(side.start or 0 for side in piece.outputs)
        if not any(start):
            raise result
        text = f"{result} (counted from {start} of the output, in a piece of the call)"
        raise type(result)(text, field=result.field, facts=result.facts)
    return result


def owned(view: Array, out: Array | None) -> Array:
    """A result that is a view of a reply, in `out` or an array of its own: its only copy here."""
    if out is None:
        return view.copy()
    np.copyto(out, view)
    return out


def handed_over(made: Array | None, out: Array | None) -> Array:
    """A result in shared memory, copied if the caller wants it elsewhere."""
    assert made is not None
    if out is None or out is made:
        return made
    copy_into(out, made)
    return out
