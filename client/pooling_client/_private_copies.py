"""Private copies of shared arrays, at the same address.

A fork shares the memory that a server leases: parent and child would write into the same arrays.
The child therefore replaces each region by a private copy. The parent waits for it, so that the
copy has the content of the moment of the fork.

After a call that failed before its reply, the server may still write a result. The array of that
result is replaced by a private copy too.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import sys
import threading

_WAIT_S = 10.0  # the child copies some gigabytes each second
_MREMAP_MAYMOVE, _MREMAP_FIXED = 1, 2
_FAILED = ctypes.c_void_p(-1).value

_used: dict[int, int] = {}  # size of each region that an array refers to, by its address
_forking = threading.local()


def use(address: int, size_bytes: int) -> None:
    """Register a region that an array refers to."""
    _used[address] = size_bytes


def release(address: int) -> None:
    """Remove a region that no array refers to any more."""
    _used.pop(address, None)


def _before() -> None:
    _forking.pipe = os.pipe() if _used else None


def _after_in_child() -> None:
    if _forking.pipe is None:
        return
    for address, size_bytes in list(_used.items()):
        if not make_private(address, size_bytes):
            sys.stderr.write("pooling_client: no memory for the arrays of a forked process\n")
            os._exit(1)
    _used.clear()
    for end in _forking.pipe:  # the parent sees the end of the pipe
        os.close(end)


def _after_in_parent() -> None:
    if _forking.pipe is None:
        return
    receiver, sender = _forking.pipe
    os.close(sender)
    select.select([receiver], [], [], _WAIT_S)
    os.close(receiver)


def make_private(address: int, size_bytes: int) -> bool:
    """Replace the pages of shared memory by private copies; return False on failure.

    Other threads may write to the rest of the first and the last page meanwhile, so these two are
    copied again right before the replacement.
    """
    end = -(-(address + size_bytes) // mmap.PAGESIZE) * mmap.PAGESIZE
    address -= address % mmap.PAGESIZE
    size_bytes = end - address
    libc = ctypes.CDLL(None)
    libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
    size = ctypes.c_size_t(size_bytes)
    copy = libc.mmap(
        None,
        size,
        mmap.PROT_READ | mmap.PROT_WRITE,
        mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
        -1,
        ctypes.c_long(0),
    )
    if copy == _FAILED:
        return False
    ctypes.memmove(copy, address, size_bytes)
    for offset in (0, size_bytes - mmap.PAGESIZE):
        ctypes.memmove(copy + offset, address + offset, mmap.PAGESIZE)
    flags = _MREMAP_MAYMOVE | _MREMAP_FIXED
    moved = libc.mremap(ctypes.c_void_p(copy), size, size, flags, ctypes.c_void_p(address))
    return bool(moved == address)


if sys.platform == "linux" and hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before, after_in_child=_after_in_child, after_in_parent=_after_in_parent
    )
