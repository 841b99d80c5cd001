"""Sizes of requests: limits of the server, and thresholds of the client."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache

from pooling_client._cutting.chunks import MAX_ROW_BAND_BYTES
from pooling_engine import BackwardCall, ForwardCall, Mode, PoolPlan
from pooling_wire import Limits

# Measured: docs/adr/0006-streams.md.
CHUNK_BYTES = 4 << 20  # tensors of a chunk
STREAM_BYTES = 8 << 20  # calls with more are split and streamed
CHUNK_WINDOW = 4  # chunks of one call without a reply

# Calls with less share a stream: docs/adr/0019-shared-streams.md. The server computes them at once.
SHARED_STREAM_BYTES = 250 << 10
SHORT_ELEMENTS = 220_000  # visits of window elements and elements of the input

# Calls of `forward_many` and `backward_many`.
BATCH_CALLS, BATCH_BYTES = 16, 128 << 10  # of one message
MANY_WINDOW = 8  # messages without a reply

_OVERHEAD_BYTES = 1024  # of a message, apart from the elements of its tensors


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Maximum sizes that a server accepts, in bytes.

    Attributes:
        message_bytes: the tensors of one request, or of one reply, together.
        tensor_bytes: one tensor in shared memory.
    """

    message_bytes: int
    tensor_bytes: int

    def needs_chunks(self, total_bytes: int) -> bool:
        """Return whether a call with this many bytes of tensors is streamed in chunks."""
        return total_bytes > min(STREAM_BYTES, self.message_bytes)

    @property
    def chunk_bytes(self) -> int:
        """Intended size of the tensors of a chunk."""
        return min(CHUNK_BYTES, max(1, self.message_bytes))

    @property
    def row_band_bytes(self) -> int:
        """Intended size of the tensors of a row band that repeats more rows than it adds."""
        return min(MAX_ROW_BAND_BYTES, max(1, self.message_bytes))


UNKNOWN = RequestLimits(sys.maxsize, sys.maxsize)  # until the server has reported its limits


def request_limits(limits: Limits) -> RequestLimits:
    """Return the sizes of requests that respect the limits of a server."""
    message = max(1, limits.max_message_bytes - _OVERHEAD_BYTES)
    return RequestLimits(min(message, limits.max_tensor_bytes), limits.max_tensor_bytes)


def load(call: ForwardCall | BackwardCall) -> float:
    """Return the work of a call as a share of the most that certainly takes a few milliseconds.

    The server computes calls of up to 1 where it receives them, so they do not wait for long ones.
    """
    return _load(call.plan, isinstance(call, BackwardCall) or call.return_indices)


@lru_cache(maxsize=512)  # for every small call
def _load(plan: PoolPlan, has_gradient_or_indices: bool) -> float:
    elements = plan.tap_visits + plan.input_bytes // plan.dtype.itemsize
    if plan.mode is Mode.LP:
        return elements / (SHORT_ELEMENTS // 5)
    if has_gradient_or_indices:
        return elements / (2 * SHORT_ELEMENTS // 5)
    return elements / SHORT_ELEMENTS
