"""Backward calls of a client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from pooling_client._calls.base import Array, ChunkedCall, PreparedCall, collected, copied
from pooling_client._cutting.chunks import (
    Chunk,
    backward_chunks,
    backward_row_bytes,
    has_unreached_rows,
)
from pooling_client._cutting.indices import to_chunk
from pooling_client._limits import RequestLimits
from pooling_engine import BackwardCall, IndexFormat
from pooling_engine.calls import check_out
from pooling_wire import BACKWARD
from pooling_wire.shared_memory import INDICES, INPUT_GRADIENT


class PreparedBackward(PreparedCall[BackwardCall, Array]):
    """A backward call with the array for the input gradient. The server checks the index entries.

    Raises:
        InvalidTensorError: `out` does not fit.
    """

    call_type, method = BackwardCall, BACKWARD

    def __init__(self, call: BackwardCall, out: Array | None = None) -> None:
        super().__init__(call)
        plan, tensors = call.plan, (call.output_gradient, call.input, call.indices)
        self.out = check_out(out, plan.input_shape, plan.dtype, *tensors)
        sent = sum(tensor.nbytes for tensor in tensors if tensor is not None)
        self.total_bytes = max(sent, plan.input_bytes)
        self.has_positions = call.index_format not in (None, IndexFormat.WINDOW)

    def tensors(self) -> dict[str, Array]:
        call = self.call
        tensors = {
            "output_gradient": call.output_gradient,
            INDICES: call.indices,
            "input": call.input,
        }
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}

    def with_tensors(self, chunk: Chunk, tensors: Mapping[str, Array]) -> BackwardCall:
        return BackwardCall(
            tensors["output_gradient"],
            chunk.spec,
            chunk.input_shape(self.call.plan),
            tensors.get(INDICES),
            tensors.get("input"),
            self.call.index_format,
        )

    def split(self, max_bytes: int, max_row_band_bytes: int) -> Iterator[Chunk]:
        call, indices = self.call, self.call.indices
        index_bytes = 0 if indices is None else indices.dtype.itemsize
        row_bytes = backward_row_bytes(call.plan, index_bytes, call.input is not None)
        return backward_chunks(call.spec, call.plan, row_bytes, max_bytes, max_row_band_bytes)

    def chunked(self, limits: RequestLimits) -> ChunkedBackward:
        return ChunkedBackward(self, limits)

    def copied(self, result: Array) -> Array:
        return copied(result, self.out)

    def collected(self, results: Mapping[str, Array], reply: Array) -> Array:
        return collected(results[INPUT_GRADIENT], self.out)


class ChunkedBackward(ChunkedCall[BackwardCall, Array]):
    """A backward call in chunks."""

    def __init__(self, prepared: PreparedBackward, limits: RequestLimits) -> None:
        plan, out = prepared.call.plan, prepared.out
        has_gaps = has_unreached_rows(plan)
        if out is None:
            out = (np.zeros if has_gaps else np.empty)(plan.input_shape, plan.dtype)
        elif has_gaps:
            out[...] = 0
        self._gradient = out
        super().__init__(prepared, limits, out.size)

    def _cut(self, name: str, tensor: Array, chunk: Chunk) -> Array:
        call = self._prepared.call
        if name == INDICES:
            format_ = call.index_format or IndexFormat.WINDOW
            return to_chunk(call.plan, chunk, tensor, format_)
        return super()._cut(name, tensor, chunk)

    def _write(self, chunk: Chunk, result: Array) -> int:
        target = self._gradient[chunk.computed]
        target[...] = result[chunk.part]
        return target.size

    def result(self) -> Array:
        return self._gradient
