"""Forward calls of a client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Self

import numpy as np

from pooling_client._calls.base import Array, ChunkedCall, PreparedCall, collected, copied
from pooling_client._cutting.chunks import Chunk, forward_chunks, forward_row_bytes
from pooling_client._cutting.indices import to_call
from pooling_client._limits import RequestLimits
from pooling_engine import ForwardCall, ForwardResult, IndexFormat, PoolSpec
from pooling_engine.calls import check_out
from pooling_wire import FORWARD
from pooling_wire.shared_memory import INDICES, OUTPUT


class PreparedForward(PreparedCall[ForwardCall, ForwardResult]):
    """A forward call with the array for its output.

    Raises:
        InvalidTensorError: `out` does not fit.
    """

    call_type, method, joins = ForwardCall, FORWARD, True

    def __init__(self, call: ForwardCall, out: Array | None = None) -> None:
        plan, format_ = call.plan, call.index_format
        if out is not None:
            out = check_out(out, plan.output_shape, plan.output_dtype, call.input)
        self.call, self.out = call, out
        index_bytes = plan.index_bytes(format_) if call.return_indices else 0
        self.total_bytes = max(plan.input_bytes, plan.output_bytes + index_bytes)
        self.has_positions = call.return_indices and format_ is not IndexFormat.WINDOW

    def tensors(self) -> dict[str, Array]:
        return {"input": self.call.input}

    def with_tensors(self, chunk: Chunk, tensors: Mapping[str, Array]) -> ForwardCall:
        return self._with_input(tensors["input"], chunk.spec)

    def _with_input(self, tensor: Array, spec: PoolSpec) -> ForwardCall:
        return ForwardCall(tensor, spec, self.call.return_indices, self.call.index_format)

    def can_join(self, other: object) -> bool:
        if not isinstance(other, PreparedForward):
            return False
        ours, theirs = self.call, other.call
        return (
            ours.spec == theirs.spec
            and ours.input.shape[1:] == theirs.input.shape[1:]
            and ours.input.dtype == theirs.input.dtype
            and ours.return_indices == theirs.return_indices
            and ours.index_format is theirs.index_format
            and ours.index_format is not IndexFormat.TENSOR  # counts from the first batch item
        )

    def joined(self, calls: Sequence[Self]) -> Self:
        tensor = np.concatenate([each.call.input for each in calls])
        return type(self)(self._with_input(tensor, self.call.spec))

    def parts(self, result: ForwardResult, calls: Sequence[Self]) -> Iterator[ForwardResult]:
        start = 0
        for each in calls:
            end = start + each.call.input.shape[0]
            indices = None if result.indices is None else result.indices[start:end].copy()
            yield ForwardResult(result.output[start:end].copy(), indices)
            start = end

    def split(self, max_bytes: int, max_row_band_bytes: int) -> Iterator[Chunk]:
        call, indices = self.call, self.call.result_specs.get(INDICES)
        row_bytes = forward_row_bytes(call.plan, indices.dtype.itemsize if indices else 0)
        return forward_chunks(call.spec, call.plan, row_bytes, max_bytes, max_row_band_bytes)

    def chunked(self, limits: RequestLimits) -> ChunkedForward:
        return ChunkedForward(self, limits)

    def copied(self, result: ForwardResult) -> ForwardResult:
        indices = None if result.indices is None else result.indices.copy()
        return ForwardResult(copied(result.output, self.out), indices)

    def collected(self, results: Mapping[str, Array], reply: ForwardResult) -> ForwardResult:
        indices = results.get(INDICES)
        if indices is None and reply.indices is not None:
            indices = reply.indices.copy()
        return ForwardResult(collected(results[OUTPUT], self.out), indices)


class ChunkedForward(ChunkedCall[ForwardCall, ForwardResult]):
    """A forward call in chunks."""

    def __init__(self, prepared: PreparedForward, limits: RequestLimits) -> None:
        specs, out = prepared.call.result_specs, prepared.out
        self._output = np.empty(*specs[OUTPUT]) if out is None else out
        self._indices = np.empty(*specs[INDICES]) if INDICES in specs else None
        super().__init__(prepared, limits, self._output.size)

    def _write(self, chunk: Chunk, result: ForwardResult) -> int:
        self._output[chunk.outputs] = result.output
        if self._indices is not None:
            call = self._prepared.call
            assert result.indices is not None
            indices = to_call(call.plan, chunk, result.indices, call.index_format)
            self._indices[chunk.outputs] = indices
        return result.output.size

    def result(self) -> ForwardResult:
        return ForwardResult(self._output, self._indices)
