"""Memory of the host that the card may reach by itself: regions, for as long as they are mapped."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from pooling_engine.backends.cupy_backend.device.protocols import HostArray

_log = logging.getLogger("pooling_engine")
_PORTABLE = 1  # cudaHostRegisterPortable: for every context of the process


class Pinned:
    """What is pinned, by CUDA and by this record; safe to use from many threads, and finalizers.

    The record says only which way a copy goes: CUDA itself knows what it may reach.

    Args:
        cupy: the module.
    """

    def __init__(self, cupy: Any) -> None:
        self._runtime = cupy.cuda.runtime
        self._ends: dict[int, int] = {}  # by where they begin; each change is one step, no lock

    def pin(self, memory: HostArray) -> Callable[[], None] | None:
        """Pins all of an array's memory; returns what ends that, or None if it cannot be.

        As `pooling_engine.backends.Backend` says.
        """
        begin = memory.ctypes.data
        try:
            self._runtime.hostRegister(begin, memory.nbytes, _PORTABLE)
        except self._runtime.CUDARuntimeError as error:
            _log.warning(
                "%d bytes of shared memory cannot be pinned, and are copied on their way: %s",
                *(memory.nbytes, error),
            )
            return None
        self._ends[begin] = begin + memory.nbytes

        def unpin(_holds: HostArray = memory) -> None:
            del self._ends[begin]
            try:
                self._runtime.hostUnregister(begin)
            except self._runtime.CUDARuntimeError as error:  # as of a device that is lost
                _log.info("shared memory could not be unpinned: %s", error)

        return unpin

    def has(self, array: HostArray) -> bool:
        """Whether all of a C-contiguous array is in memory pinned here."""
        if not self._ends:
            return False
        begin = array.ctypes.data
        end = begin + array.nbytes
        regions = tuple(self._ends.items())
        return any(first <= begin and end <= last for first, last in regions)
