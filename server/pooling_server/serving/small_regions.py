"""Regions of shared memory that decoding in the polling thread may copy."""

from __future__ import annotations

from pooling_server.serving.duration import INLINE_BYTES
from pooling_wire.shared_memory import NO_REGIONS, Regions


class LargeRegionError(Exception):
    """A message refers to a large region; a thread has to decode it."""


class _SmallRegions:
    """Lookup of regions of at most `INLINE_BYTES`."""

    def __init__(self, regions: Regions) -> None:
        self._regions = regions

    def find(self, handle: bytes) -> memoryview:
        """Return the region of a handle, as `Regions.find` does.

        Raises:
            LargeRegionError: the region is larger than `INLINE_BYTES`.
        """
        region = self._regions.find(handle)
        if len(region) > INLINE_BYTES:
            raise LargeRegionError
        return region


def small_regions(regions: Regions) -> Regions:
    """Return the lookup of small regions; lookups of large ones raise `LargeRegionError`."""
    return regions if regions is NO_REGIONS else _SmallRegions(regions)
