"""A backward call of a client: see `pooling_client._calls.jobs`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

import pooling_wire
from pooling_client import _channel
from pooling_client._calls.jobs import Array, Job, handed_over, owned, refuse_other, unwrapped
from pooling_client._cutting.chunks import (
    Chunk,
    backward_chunks,
    backward_row_bytes,
    has_unreached_rows,
)
from pooling_client._cutting.indices import to_chunk
from pooling_client._limits import RequestLimits
from pooling_client._shared_memory import Placing, SharedArrays
from pooling_engine import IndexFormat, PoolingError, PoolSpec
from pooling_engine.calls.checks import as_tensor, check_index_format, check_out, plan_backward
from pooling_engine.plans.indices import check_indices
from pooling_wire.shared_memory.places import INPUT_GRADIENT


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
        if taps is not None:
            chosen = check_indices(plan, taps, chosen)
        check_out(out, plan.input_shape, plan.dtype, dy, x, taps)
        shape = plan.input_shape if x is None else None  # the input says its own
        self._call = self._sent = pooling_wire.BackwardCall(dy, spec, shape, taps, x, chosen)
        self._out = out
        self.spec, self.plan = spec, plan
        sent = sum(tensor.nbytes for tensor in (dy, x, taps) if tensor is not None)
        self.total_bytes = max(sent, plan.input_bytes)

    def request(self) -> bytes:
        return pooling_wire.encode_backward_request(self._sent)

    def slabs(self, sizes: RequestLimits) -> list[Chunk] | None:
        slabs = super().slabs(sizes)
        is_window = self._call.index_format in (None, IndexFormat.WINDOW)
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

    def _shared_slab(self, slab: Chunk, placing: Placing) -> bytes:
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
        return handed_over(self._shared_gradient, self._out)

    def result(self, reply: bytes) -> Array:
        return self.owned(pooling_wire.decode_backward_response(reply))

    def owned(self, result: Array) -> Array:
        """A gradient that is a view of a reply, in an array that the caller owns."""
        return owned(result, self._out)

    def item(self, id_: int) -> bytes:
        return pooling_wire.encode_backward_item(id_, self._call)

    def item_result(self, reply: bytes) -> Array | PoolingError:
        _, result = pooling_wire.decode_backward_item_reply(reply)
        return result if isinstance(result, PoolingError) else self.owned(result)

    def pieces(self, slab_bytes: int, band_bytes: int) -> Iterator[Chunk]:
        taps = self._call.indices
        itemsize = 0 if taps is None else taps.dtype.itemsize
        row_bytes = backward_row_bytes(self.plan, itemsize, self._call.input is not None)
        return backward_chunks(self.spec, self.plan, row_bytes, slab_bytes, band_bytes)

    def requests(self, sizes: RequestLimits) -> Iterator[tuple[Chunk, bytes | PoolingError]]:
        call, plan, taps, x = self._call, self.plan, self._call.indices, self._call.input
        format_ = call.index_format or IndexFormat.WINDOW
        self._gradient = self._fresh()
        for id_, piece in enumerate(self._pieces_for(sizes)):
            part = pooling_wire.BackwardCall(
                call.output_gradient[piece.outputs],
                piece.spec,
                self._gradient[piece.inputs].shape if x is None else None,
                None if taps is None else to_chunk(plan, piece, taps, format_),
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

    def place(self, piece: Chunk, reply: bytes | PoolingError) -> int:
        result = unwrapped(piece, reply, pooling_wire.decode_backward_item_reply)
        target = self._gradient[piece.computed]
        target[...] = result[piece.part]
        return target.size * self.total_bytes // self._gradient.size

    def assembled(self) -> Array:
        return self._gradient


def backward_job(call: pooling_wire.BackwardCall) -> BackwardJob:
    """The job of a call whose arguments nobody has checked."""
    refuse_other(call, pooling_wire.BackwardCall)
    return BackwardJob(
        call.output_gradient,
        call.spec,
        call.input_shape,
        call.indices,
        call.input,
        call.index_format,
    )
