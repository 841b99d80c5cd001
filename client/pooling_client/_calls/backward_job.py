"""A backward call of a client: see `pooling_client._calls.jobs`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

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
from pooling_engine import BackwardCall, IndexFormat, PoolingError, PoolSpec
from pooling_engine.calls import check_out
from pooling_wire import BACKWARD
from pooling_wire.shared_memory import INPUT_GRADIENT, NO_PLACES


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
        call = BackwardCall(output_gradient, spec, input_shape, indices, input_, index_format)
        plan, tensors = call.plan, (call.output_gradient, call.input, call.indices)
        check_out(out, plan.input_shape, plan.dtype, *tensors)
        self._call, self._out = call, out
        self.unshare()
        self.spec, self.plan = spec, plan
        sent = sum(tensor.nbytes for tensor in tensors if tensor is not None)
        self.total_bytes = max(sent, plan.input_bytes)

    def request(self) -> bytes:
        return BACKWARD.encode_request(self._sent, self._places)

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
            self._sent = replace(call, output_gradient=dy, indices=taps, input=x)
            self._places = placing.places
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
        part_call = BackwardCall(dy, self.spec, part.shape, taps, x, call.index_format)
        return BACKWARD.encode_request(part_call, placing.places)

    def unshare(self) -> None:
        self._sent, self._places = self._call, NO_PLACES

    def shared_result(self, reply: bytes, shared: SharedArrays) -> Array:
        BACKWARD.decode_response(reply, shared)
        return handed_over(self._shared_gradient, self._out)

    def result(self, reply: bytes) -> Array:
        return self.owned(BACKWARD.decode_response(reply))

    def owned(self, result: Array) -> Array:
        """A gradient that is a view of a reply, in an array that the caller owns."""
        return owned(result, self._out)

    def item(self, id_: int) -> bytes:
        return BACKWARD.encode_item(id_, self._call)

    def item_result(self, reply: bytes) -> Array | PoolingError:
        _, result = BACKWARD.decode_reply(reply)
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
            part = BackwardCall(
                call.output_gradient[piece.outputs],
                piece.spec,
                self._gradient[piece.inputs].shape,
                None if taps is None else to_chunk(plan, piece, taps, format_),
                None if x is None else x[piece.inputs],
                call.index_format,
            )
            yield piece, BACKWARD.encode_item(id_, part)

    def _fresh(self) -> Array:
        has_gaps = has_unreached_rows(self.plan)
        if self._out is None:
            return (np.zeros if has_gaps else np.empty)(self.plan.input_shape, self.plan.dtype)
        if has_gaps:
            self._out[...] = 0
        return self._out

    def place(self, piece: Chunk, reply: bytes | PoolingError) -> int:
        result = unwrapped(piece, reply, BACKWARD.decode_reply)
        target = self._gradient[piece.computed]
        target[...] = result[piece.part]
        return target.size * self.total_bytes // self._gradient.size

    def assembled(self) -> Array:
        return self._gradient


def backward_job(call: BackwardCall) -> BackwardJob:
    """The job of a call whose arguments nobody has checked."""
    refuse_other(call, BackwardCall)
    return BackwardJob(
        call.output_gradient,
        call.spec,
        call.input_shape,
        call.indices,
        call.input,
        call.index_format,
    )
