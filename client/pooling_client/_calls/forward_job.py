"""A forward call of a client: see `pooling_client._calls.jobs`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pooling_client import _channel
from pooling_client._calls.jobs import Array, Job, handed_over, owned, refuse_other, unwrapped
from pooling_client._cutting.chunks import Chunk, forward_chunks, forward_row_bytes
from pooling_client._cutting.indices import to_call
from pooling_client._limits import RequestLimits
from pooling_client._shared_memory import Placing, SharedArrays
from pooling_engine import ForwardCall, ForwardResult, IndexFormat, PoolingError, PoolSpec
from pooling_engine.calls import check_out
from pooling_wire import FORWARD
from pooling_wire.shared_memory import INDICES, NO_PLACES, OUTPUT


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
        call = ForwardCall(x, spec, return_indices, index_format)
        plan = call.plan
        check_out(out, plan.output_shape, plan.output_dtype, call.input)
        self._call, self._out = call, out
        self.unshare()
        self.spec, self.plan = spec, plan
        index_bytes = plan.index_bytes(call.index_format) if return_indices else 0
        self.total_bytes = max(plan.input_bytes, plan.output_bytes + index_bytes)

    def request(self) -> bytes:
        return FORWARD.encode_request(self._sent, self._places)

    def slabs(self, sizes: RequestLimits) -> list[Chunk] | None:
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
            self._sent, self._places = replace(call, input=tensor), placing.places
        return placing.is_whole

    def _shared_slab(self, slab: Chunk, placing: Placing) -> bytes:
        tensor = placing.given("input", self._sent.input[slab.inputs])
        for name, made in ((OUTPUT, self._shared_output), (INDICES, self._shared_indices)):
            if made is not None:
                part = made[slab.outputs]
                placing.wanted(name, part, part.shape, part.dtype)
        return FORWARD.encode_request(replace(self._sent, input=tensor), placing.places)

    def unshare(self) -> None:
        self._sent, self._places = self._call, NO_PLACES

    def shared_result(self, reply: bytes, shared: SharedArrays) -> ForwardResult:
        result = FORWARD.decode_response(reply, shared)
        indices = self._shared_indices
        if indices is None and result.indices is not None:
            indices = result.indices.copy()
        return ForwardResult(handed_over(self._shared_output, self._out), indices)

    def result(self, reply: bytes) -> ForwardResult:
        return self.owned(FORWARD.decode_response(reply))

    def owned(self, result: ForwardResult) -> ForwardResult:
        """A result whose arrays are views of a reply, in arrays that the caller owns."""
        indices = None if result.indices is None else result.indices.copy()
        return ForwardResult(owned(result.output, self._out), indices)

    def item(self, id_: int) -> bytes:
        return FORWARD.encode_item(id_, self._call)

    def item_result(self, reply: bytes) -> ForwardResult | PoolingError:
        _, result = FORWARD.decode_reply(reply)
        return result if isinstance(result, PoolingError) else self.owned(result)

    @property
    def _index_dtype(self) -> np.dtype[Any]:
        is_window = self._call.index_format is IndexFormat.WINDOW
        return self.plan.index_dtype if is_window else np.dtype(np.int64)

    def pieces(self, slab_bytes: int, band_bytes: int) -> Iterator[Chunk]:
        row_bytes = forward_row_bytes(
            self.plan, self._index_dtype.itemsize if self._call.return_indices else 0
        )
        return forward_chunks(self.spec, self.plan, row_bytes, slab_bytes, band_bytes)

    def requests(self, sizes: RequestLimits) -> Iterator[tuple[Chunk, bytes | PoolingError]]:
        call, plan = self._call, self.plan
        self._output = (
            np.empty(plan.output_shape, plan.output_dtype) if self._out is None else self._out
        )
        self._indices = None
        if call.return_indices:
            self._indices = np.empty(plan.output_shape, self._index_dtype)
        for id_, piece in enumerate(self._pieces_for(sizes)):
            part = ForwardCall(
                call.input[piece.inputs], piece.spec, call.return_indices, call.index_format
            )
            yield piece, FORWARD.encode_item(id_, part)

    def place(self, piece: Chunk, reply: bytes | PoolingError) -> int:
        result = unwrapped(piece, reply, FORWARD.decode_reply)
        self._output[piece.outputs] = result.output
        if self._indices is not None:
            format_ = self._call.index_format
            self._indices[piece.outputs] = to_call(self.plan, piece, result.indices, format_)
        return int(result.output.size) * self.total_bytes // self._output.size

    def assembled(self) -> ForwardResult:
        return ForwardResult(self._output, self._indices)


def forward_job(call: ForwardCall) -> ForwardJob:
    """The job of a call whose arguments nobody has checked."""
    refuse_other(call, ForwardCall)
    return ForwardJob(call.input, call.spec, call.return_indices, call.index_format)
