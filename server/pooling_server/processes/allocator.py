"""What the C library does with the memory of messages that have been answered."""

from __future__ import annotations

import ctypes
import os

MIB = 1 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_FROM_THE_HEAP_BYTES = 32 * MIB  # the most that glibc takes
_KEPT_BYTES = 32 * MIB  # of each heap: more adds nothing to speed, only to memory


def keep_freed_memory() -> bool:
    """Lets the process use freed memory again, which glibc would give back to the system at once.

    Every message would come in pages that the system has to clear first: docs/adr/0008. Where the
    environment says what the allocator should do, or the C library is another, nothing changes.

    Returns:
        Whether anything did.
    """
    if any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _FROM_THE_HEAP_BYTES) and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    )
