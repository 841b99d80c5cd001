"""Tuning of glibc malloc: memory freed after a message is kept for the next message."""

from __future__ import annotations

import ctypes
import os

MIB = 1 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # parameter numbers of mallopt
_MMAP_THRESHOLD_BYTES = 32 * MIB  # the largest value that glibc accepts
_TRIM_THRESHOLD_BYTES = 64 * MIB  # per heap: two copies of the largest block from the heap


def tune_allocator() -> bool:
    """Keep freed memory in the process instead of returning it to the operating system.

    With glibc's defaults, every message arrives in pages that the kernel must clear first
    (docs/adr/0008). Nothing changes if the environment already configures the allocator, or if the
    C library is not glibc.

    Returns:
        True if the allocator was tuned.
    """
    if any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
        and mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES)
    )
