"""Pinned host memory: regions that the GPU accesses directly for as long as they are mapped."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from pooling_engine.backends.cupy_backend.device.protocols import HostArray

_log = logging.getLogger("pooling_engine")
_PORTABLE = 1  # cudaHostRegisterPortable: valid in every context of the process


class PinnedMemory:
    """Record of the memory that this process pinned. Safe to use from threads and finalizers.

    The record decides only how an array is copied; CUDA has its own record of pinned memory.

    Args:
        cupy: the `cupy` module.
    """

    def __init__(self, cupy: Any) -> None:
        self._runtime = cupy.cuda.runtime
        self._ends: dict[int, int] = {}  # begin: end. Each change is atomic, so there is no lock

    def pin(self, memory: HostArray) -> Callable[[], None] | None:
        """Pin the memory of an array.

        Returns:
            A function that unpins the memory and keeps the array alive until it is called. None if
            the memory cannot be pinned, which is logged.
        """
        begin = memory.ctypes.data
        try:
            self._runtime.hostRegister(begin, memory.nbytes, _PORTABLE)
        except self._runtime.CUDARuntimeError as error:
            _log.warning(
                "cannot pin %d bytes of shared memory, tensors in it are copied instead: %s",
                *(memory.nbytes, error),
            )
            return None
        self._ends[begin] = begin + memory.nbytes

        def unpin(_holds: HostArray = memory) -> None:
            del self._ends[begin]
            try:
                self._runtime.hostUnregister(begin)
            except self._runtime.CUDARuntimeError as error:  # for example a lost device
                _log.info("cannot unpin shared memory: %s", error)

        return unpin

    def contains(self, array: HostArray) -> bool:
        """Return whether all of a C-contiguous array lies in one pinned region."""
        if not self._ends:
            return False
        begin = array.ctypes.data
        end = begin + array.nbytes
        regions = tuple(self._ends.items())
        return any(first <= begin and end <= last for first, last in regions)
