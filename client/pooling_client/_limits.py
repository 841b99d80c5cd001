"""Limits of a server in terms of the client: bytes per request or reply."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from pooling_wire import Limits

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


UNKNOWN = RequestLimits(sys.maxsize, sys.maxsize)  # until the server has been asked


def request_limits(limits: Limits) -> RequestLimits:
    """Return the sizes of requests that respect the limits of a server."""
    message = max(1, limits.max_message_bytes - _OVERHEAD_BYTES)
    return RequestLimits(min(message, limits.max_tensor_bytes), limits.max_tensor_bytes)
