"""How large the messages to a server may be: what it says of its limits, in the client's terms."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from pooling_wire import Limits

_OVERHEAD_BYTES = 1024  # of a message: everything but the elements of its tensors


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a server takes and gives, in bytes.

    Attributes:
        whole_bytes: the most that the tensors of one request, or of one reply, may have together.
        tensor_bytes: the most of one tensor in shared memory.
    """

    whole_bytes: int
    tensor_bytes: int


ANY = Sizes(sys.maxsize, sys.maxsize)  # until the server has been asked


def sizes_of(limits: Limits) -> Sizes:
    """The sizes that a server's limits leave."""
    message = max(1, limits.max_message_bytes - _OVERHEAD_BYTES)
    return Sizes(min(message, limits.max_tensor_bytes), limits.max_tensor_bytes)
