"""Forward calls of several layers: one request, or one for each part of the batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeGuard

import numpy as np

from pooling_client._calls.base import PreparedMessage
from pooling_client._limits import RequestLimits, load
from pooling_client._streams.backlog import Reply
from pooling_engine import ForwardAllCall, ForwardCall, ForwardResult, IndexFormat, PoolingError
from pooling_wire import FORWARD

Results = tuple[ForwardResult, ...]


class PreparedForwardAll(PreparedMessage[ForwardAllCall, Results | None]):
    """A forward call of several layers. Its result is None if the server ignored further layers."""

    method = FORWARD

    def __init__(self, call: ForwardAllCall) -> None:
        self.call = call
        results = sum(spec.nbytes for spec in call.result_specs.values())
        self.total_bytes = max(call.plan.input_bytes, results)

    @property
    def load(self) -> float:
        return sum(map(load, self.call.calls))

    def copied(self, result: Results | ForwardResult | None) -> Results | None:
        if not _has_all(result):
            return None
        return tuple(
            ForwardResult(each.output.copy(), None if each.indices is None else each.indices.copy())
            for each in result
        )

    def in_parts(self, limits: RequestLimits) -> ForwardAllParts | None:
        """Return the call in parts of the batch; None if one batch item exceeds the limits.

        Also None if indices count in the whole tensor, because parts would count from their start.
        """
        items = self.call.input.shape[0]
        formats = [call.index_format for call in self.call.calls]
        if IndexFormat.TENSOR in formats or self.total_bytes > items * limits.message_bytes:
            return None
        return ForwardAllParts(self.call, max(1, items * limits.chunk_bytes // self.total_bytes))


class ForwardAllParts:
    """A forward call of several layers in parts of the batch, each a complete call.

    Args:
        call: the call.
        items: batch items of one part.
    """

    def __init__(self, call: ForwardAllCall, items: int) -> None:
        self._call = call
        self._items = items
        self._results: Results | None = tuple(
            ForwardResult(
                np.empty(*specs["output"]),
                np.empty(*specs["indices"]) if "indices" in specs else None,
            )
            for specs in (each.result_specs for each in call.calls)
        )

    def requests(self) -> Iterator[tuple[slice, bytes]]:
        """Yield the parts with their requests."""
        call = self._call
        for start in range(0, call.input.shape[0], self._items):
            part = slice(start, start + self._items)
            layers = [
                ForwardCall(call.input[part], each.spec, each.return_indices, each.index_format)
                for each in call.calls
            ]
            yield part, FORWARD.encode_item(start, ForwardAllCall(tuple(layers)))

    def receive(self, part: slice, reply: Reply) -> None:
        """Write the results of a part.

        Raises:
            PoolingError: the server rejected the part.
        """
        assert isinstance(reply, bytes)
        _, results = FORWARD.decode_reply(reply)
        if isinstance(results, PoolingError):
            raise results
        if self._results is None or not _has_all(results):
            self._results = None
            return
        for whole, result in zip(self._results, results, strict=True):
            whole.output[part] = result.output
            if whole.indices is not None:
                whole.indices[part] = result.indices

    def result(self) -> Results | None:
        """Return the results, after the last part; None if the server ignored further layers."""
        return self._results


def _has_all(result: Results | ForwardResult | None) -> TypeGuard[Results]:
    """Return whether a reply has the results of all layers."""
    return isinstance(result, tuple) and not isinstance(result, ForwardResult)
