"""What both clients do before and after the wire: check, cut and encode; decode and put together.

A job is one call. Small ones are one message there and one back; large ones are pieces on a stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

import pooling_wire
from pooling_client import _channel
from pooling_client._indices import to_piece, to_whole
from pooling_client._pieces import (
    LARGEST_BAND_BYTES,
    Piece,
    backward_costs,
    backward_pieces,
    forward_costs,
    forward_pieces,
    has_unreached_rows,
)
from pooling_client._shared_memory import Placing, SharedArrays
from pooling_client._sizes import ANY, Sizes
from pooling_engine import (
    ForwardResult,
    IndexFormat,
    PoolingError,
    PoolPlan,
    PoolSpec,
    TensorTooLargeError,
)
from pooling_engine.checks import (
    as_tensor,
    check_index_format,
    check_index_request,
    check_out,
    plan_backward,
)
from pooling_engine.plan import make_plan
from pooling_wire.places import INDICES, INPUT_GRADIENT, OUTPUT

Array = NDArray[Any]
Result = TypeVar("Result")
Progress = Callable[[int, int], object]

SLAB_BYTES = 4 << 20  # tensors of one message on a stream
STREAM_BYTES = 16 << 20  # a larger request or reply goes by stream
WINDOW = 4  # pieces in flight
MANY_WINDOW = 16  # calls in flight, of many


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

    @property
    def can_be_cut(self) -> bool:
        """Whether it may go in pieces."""
        return True

    def should_ask(self, sizes: Sizes) -> bool:
        """Whether to ask the server what it takes first: small calls do not pay for it."""
        return sizes is ANY and self.total_bytes > STREAM_BYTES

    def is_large(self, sizes: Sizes) -> bool:
        """Whether it goes by stream, to a server that takes these sizes."""
        return self.can_be_cut and self.total_bytes > min(STREAM_BYTES, sizes.whole_bytes)

    def pieces(self, slab_bytes: int, band_bytes: int) -> Iterator[Piece]:
        """The pieces of the call: see `pooling_client._pieces`."""
        raise NotImplementedError

    def _pieces_for(self, sizes: Sizes) -> Iterator[Piece]:
        most = max(1, sizes.whole_bytes)
        return self.pieces(min(SLAB_BYTES, most), min(LARGEST_BAND_BYTES, most))

    def slabs(self, sizes: Sizes) -> list[Piece] | None:
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

    def share(self, shared: SharedArrays, sizes: Sizes) -> bool:
        """Brings the whole call into shared memory; returns whether there is room for all of it.

        From then on `request` and `shared_result` are about what is there.
        """
        self._slabs = self.slabs(sizes) if self.can_be_cut else []
        return self._slabs is not None and self._share(shared)

    def _share(self, shared: SharedArrays) -> bool:
        raise NotImplementedError

    def shared_requests(self, shared: SharedArrays) -> list[bytes]:
        """The requests of a call in shared memory: one, or those of its slabs."""
        if not self._slabs:
            return [self.request()]
        return [self._shared_slab(slab, Placing(shared)) for slab in self._slabs]

    def _shared_slab(self, slab: Piece, placing: Placing) -> bytes:
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

    def requests(self, sizes: Sizes) -> Iterator[tuple[Piece, bytes | PoolingError]]:
        """The pieces of the call, each with its request; made one by one."""
        raise NotImplementedError

    def place(self, piece: Piece, reply: bytes | PoolingError) -> int:
        """Writes the reply to a piece into its place; returns how many bytes of the total that was.

        Raises:
            PoolingError: the piece was refused.
        """
        raise NotImplementedError

    def assembled(self) -> Result:
        """The result, once every piece is in place."""
        raise NotImplementedError


class ForwardJob(Job[ForwardResult]):
    """A forward call; what the engine would refuse is refused here already.

    Raises:
        As `pooling_engine.forward`.
    """

    method, stream_method = _channel.FORWARD, _channel.FORWARD_STREAM

    def __init__(
        self,
        x: ArrayLike,
        spec: PoolSpec,
        return_indices: bool,
        index_format: str,
        out: Array | None = None,
    ) -> None:
        tensor = as_tensor(x, "input")
        plan = make_plan(spec, tensor.shape, tensor.dtype)
        chosen = check_index_request(plan, return_indices, index_format)
        check_out(out, plan.output_shape, plan.output_dtype, tensor)
        self._call = self._sent = pooling_wire.ForwardCall(tensor, spec, return_indices, chosen)
        self._out = out
        self.spec, self.plan = spec, plan
        index_bytes = plan.index_bytes(chosen) if return_indices else 0
        self.total_bytes = max(plan.input_bytes, plan.output_bytes + index_bytes)

    def request(self) -> bytes:
        return pooling_wire.encode_forward_request(self._sent)

    def slabs(self, sizes: Sizes) -> list[Piece] | None:
        slabs, call = super().slabs(sizes), self._call
        is_placed = not call.return_indices or call.index_format is IndexFormat.WINDOW
        return slabs if is_placed or not slabs else None

    def _share(self, shared: SharedArrays) -> bool:
        call, plan, placing = self._call, self.plan, Placing(shared)
        tensor = placing.given("input", call.input)
        self._shared_output = placing.wanted(
            OUTPUT, self._out, plan.output_shape, plan.output_dtype
        )
        self._shared_indices = None
        if call.return_indices and call.index_format is IndexFormat.WINDOW:
            self._shared_indices = placing.wanted(
                INDICES, None, plan.output_shape, plan.index_dtype
            )
        if placing.is_whole:
            self._sent = replace(call, input=tensor, places=placing.places)
        return placing.is_whole

    def _shared_slab(self, slab: Piece, placing: Placing) -> bytes:
        tensor = placing.given("input", self._sent.input[slab.inputs])
        for name, made in ((OUTPUT, self._shared_output), (INDICES, self._shared_indices)):
            if made is not None:
                part = made[slab.outputs]
                placing.wanted(name, part, part.shape, part.dtype)
        part_call = replace(self._sent, input=tensor, places=placing.places)
        return pooling_wire.encode_forward_request(part_call)

    def unshare(self) -> None:
        self._sent = self._call

    def shared_result(self, reply: bytes, shared: SharedArrays) -> ForwardResult:
        result = pooling_wire.decode_forward_response(reply, shared)
        indices = self._shared_indices
        if indices is None and result.indices is not None:
            indices = result.indices.copy()
        return ForwardResult(_handed_over(self._shared_output, self._out), indices)

    def result(self, reply: bytes) -> ForwardResult:
        return self.owned(pooling_wire.decode_forward_response(reply))

    def owned(self, result: ForwardResult) -> ForwardResult:
        """A result whose arrays are views of a reply, in arrays that the caller owns."""
        indices = None if result.indices is None else result.indices.copy()
        return ForwardResult(_owned(result.output, self._out), indices)

    def item(self, id_: int) -> bytes:
        return pooling_wire.encode_forward_item(id_, self._call)

    def item_result(self, reply: bytes) -> ForwardResult | PoolingError:
        _, result = pooling_wire.decode_forward_item_reply(reply)
        return result if isinstance(result, PoolingError) else self.owned(result)

    @property
    def _index_dtype(self) -> np.dtype[Any]:
        is_window = self._call.index_format is IndexFormat.WINDOW
        return self.plan.index_dtype if is_window else np.dtype(np.int64)

    def pieces(self, slab_bytes: int, band_bytes: int) -> Iterator[Piece]:
        costs = forward_costs(
            self.plan, self._index_dtype.itemsize if self._call.return_indices else 0
        )
        return forward_pieces(self.spec, self.plan, costs, slab_bytes, band_bytes)

    def requests(self, sizes: Sizes) -> Iterator[tuple[Piece, bytes | PoolingError]]:
        call, plan = self._call, self.plan
        self._output = (
            np.empty(plan.output_shape, plan.output_dtype) if self._out is None else self._out
        )
        self._indices = None
        if call.return_indices:
            self._indices = np.empty(plan.output_shape, self._index_dtype)
        for id_, piece in enumerate(self._pieces_for(sizes)):
            part = pooling_wire.ForwardCall(
                call.input[piece.inputs], piece.spec, call.return_indices, call.index_format
            )
            yield piece, pooling_wire.encode_forward_item(id_, part)

    def place(self, piece: Piece, reply: bytes | PoolingError) -> int:
        result = _unwrapped(piece, reply, pooling_wire.decode_forward_item_reply)
        self._output[piece.outputs] = result.output
        if self._indices is not None:
            format_ = self._call.index_format
            self._indices[piece.outputs] = to_whole(self.plan, piece, result.indices, format_)
        return int(result.output.size) * self.total_bytes // self._output.size

    def assembled(self) -> ForwardResult:
        return ForwardResult(self._output, self._indices)


class BackwardJob(Job[Array]):
    """A backward call; only the entries of `indices` are left for the server to check.

    Raises:
        As `pooling_engine.backward`.
    """

    method, stream_method = _channel.BACKWARD, _channel.BACKWARD_STREAM

    def __init__(
        self,
        output_gradient: ArrayLike,
        spec: PoolSpec,
        input_shape: Sequence[int] | None,
        indices: ArrayLike | None,
        input_: ArrayLike | None,
        index_format: str | None,
        out: Array | None = None,
    ) -> None:
        dy = as_tensor(output_gradient, "output_gradient")
        x = None if input_ is None else as_tensor(input_, "input")
        taps = None if indices is None else as_tensor(indices, "indices")
        plan = plan_backward(spec, dy, input_shape, taps, x)
        chosen = check_index_format(index_format, taps)
        check_out(out, plan.input_shape, plan.dtype, dy, x, taps)
        shape = plan.input_shape if x is None else None  # the input says its own
        self._call = self._sent = pooling_wire.BackwardCall(dy, spec, shape, taps, x, chosen)
        self._out = out
        self.spec, self.plan = spec, plan
        sent = sum(tensor.nbytes for tensor in (dy, x, taps) if tensor is not None)
        self.total_bytes = max(sent, plan.input_bytes)

    @property
    def can_be_cut(self) -> bool:
        """Whether it may go in pieces; indices of a wrong shape go whole, to be refused."""
        taps = self._call.indices
        return taps is None or taps.shape == self.plan.output_shape

    @property
    def _index_format(self) -> IndexFormat:
        taps = self._call.indices
        is_positions = taps is not None and taps.dtype == np.int64
        return self._call.index_format or (
            IndexFormat.PLANE if is_positions else IndexFormat.WINDOW
        )

    def request(self) -> bytes:
        return pooling_wire.encode_backward_request(self._sent)

    def slabs(self, sizes: Sizes) -> list[Piece] | None:
        slabs = super().slabs(sizes)
        is_window = self._call.indices is None or self._index_format is IndexFormat.WINDOW
        return slabs if is_window or not slabs else None

    def _share(self, shared: SharedArrays) -> bool:
        call, plan, placing = self._call, self.plan, Placing(shared)
        self._shared_gradient = placing.wanted(
            INPUT_GRADIENT, self._out, plan.input_shape, plan.dtype
        )
        dy, taps, x = (
            None if tensor is None else placing.given(name, tensor)
            for name, tensor in (
                ("output_gradient", call.output_gradient),
                ("indices", call.indices),
                ("input", call.input),
            )
        )
        if placing.is_whole and dy is not None:
            self._sent = replace(
                call, output_gradient=dy, indices=taps, input=x, places=placing.places
            )
        return placing.is_whole

    def _shared_slab(self, slab: Piece, placing: Placing) -> bytes:
        call, gradient = self._sent, self._shared_gradient
        assert gradient is not None
        part = gradient[slab.inputs]
        placing.wanted(INPUT_GRADIENT, part, part.shape, part.dtype)
        dy, taps, x = (
            None if tensor is None else placing.given(name, tensor[box])
            for name, tensor, box in (
                ("output_gradient", call.output_gradient, slab.outputs),
                ("indices", call.indices, slab.outputs),
                ("input", call.input, slab.inputs),
            )
        )
        assert dy is not None
        shape = part.shape if x is None else None
        part_call = pooling_wire.BackwardCall(
            dy, self.spec, shape, taps, x, call.index_format, places=placing.places
        )
        return pooling_wire.encode_backward_request(part_call)

    def unshare(self) -> None:
        self._sent = self._call

    def shared_result(self, reply: bytes, shared: SharedArrays) -> Array:
        pooling_wire.decode_backward_response(reply, shared)
        return _handed_over(self._shared_gradient, self._out)

    def result(self, reply: bytes) -> Array:
        return self.owned(pooling_wire.decode_backward_response(reply))

    def owned(self, result: Array) -> Array:
        """A gradient that is a view of a reply, in an array that the caller owns."""
        return _owned(result, self._out)

    def item(self, id_: int) -> bytes:
        return pooling_wire.encode_backward_item(id_, self._call)

    def item_result(self, reply: bytes) -> Array | PoolingError:
        _, result = pooling_wire.decode_backward_item_reply(reply)
        return result if isinstance(result, PoolingError) else self.owned(result)

    def pieces(self, slab_bytes: int, band_bytes: int) -> Iterator[Piece]:
        taps = self._call.indices
        itemsize = 0 if taps is None else taps.dtype.itemsize
        costs = backward_costs(self.plan, itemsize, self._call.input is not None)
        return backward_pieces(self.spec, self.plan, costs, slab_bytes, band_bytes)

    def requests(self, sizes: Sizes) -> Iterator[tuple[Piece, bytes | PoolingError]]:
        call, plan, taps, x = self._call, self.plan, self._call.indices, self._call.input
        self._gradient = self._fresh()
        format_ = self._index_format
        for id_, piece in enumerate(self._pieces_for(sizes)):
            part = pooling_wire.BackwardCall(
                call.output_gradient[piece.outputs],
                piece.spec,
                self._gradient[piece.inputs].shape if x is None else None,
                None if taps is None else to_piece(plan, piece, taps, format_),
                None if x is None else x[piece.inputs],
                call.index_format,
            )
            yield piece, pooling_wire.encode_backward_item(id_, part)

    def _fresh(self) -> Array:
        has_gaps = has_unreached_rows(self.plan)
        if self._out is None:
            return (np.zeros if has_gaps else np.empty)(self.plan.input_shape, self.plan.dtype)
        if has_gaps:
            self._out[...] = 0
        return self._out

    def place(self, piece: Piece, reply: bytes | PoolingError) -> int:
        result = _unwrapped(piece, reply, pooling_wire.decode_backward_item_reply)
        target = self._gradient[piece.computed]
        target[...] = result[piece.part]
        return target.size * self.total_bytes // self._gradient.size

    def assembled(self) -> Array:
        return self._gradient


def forward_job(call: pooling_wire.ForwardCall) -> ForwardJob:
    """The job of a call whose arguments nobody has checked."""
    return ForwardJob(call.input, call.spec, call.return_indices, call.index_format)


def backward_job(call: pooling_wire.BackwardCall) -> BackwardJob:
    """The job of a call whose arguments nobody has checked."""
    return BackwardJob(
        call.output_gradient,
        call.spec,
        call.input_shape,
        call.indices,
        call.input,
        call.index_format,
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


def outcome_of(job: Job[Result] | None, reply: bytes | PoolingError) -> Result | PoolingError:
    """The result of a job, or what refused it."""
    if job is None or isinstance(reply, PoolingError):
        assert isinstance(reply, PoolingError)
        return reply
    return job.item_result(reply)


def _unwrapped(piece: Piece, reply: bytes | PoolingError, decode: Any) -> Any:
    """The result in a reply.

    Raises:
        PoolingError: the piece was refused; places in the text are counted from its beginning.
    """
    _, result = decode(reply)
    if isinstance(result, PoolingError):
        start = tuple(side.start or 0 for side in piece.outputs)
        text = f"{result} (counted from {start} of the output, in a piece of the call)"
        raise type(result)(text, field=result.field, facts=result.facts)
    return result


def _owned(view: Array, out: Array | None) -> Array:
    if out is None:
        return view.copy()
    np.copyto(out, view)
    return out


@contextmanager
def at_hand(job: Job[Any], shared: SharedArrays) -> Iterator[None]:
    """Lets a call that was brought into shared memory go on without, if that is what fails it.

    That is: if the lease has ended, with the server; or if the tensor is too large for one call.
    """
    try:
        yield
    except PoolingError as error:
        job.unshare()
        if not isinstance(error, TensorTooLargeError) and shared.is_alive():
            raise


def _handed_over(made: Array | None, out: Array | None) -> Array:
    """A result in shared memory, copied if the caller wants it elsewhere."""
    assert made is not None
    if out is None or out is made:
        return made
    np.copyto(out, made)
    return out


def say_nothing(done: int, total: int) -> None:
    """The progress that nobody asked for."""
