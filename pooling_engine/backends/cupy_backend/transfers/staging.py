"""Calls on host arrays, staged through buffers that the GPU accesses directly.

A call is cut into chunks of planes. While one buffer uploads, another computes and a third is
filled by the host. Buffers share no data, so no events are needed between them. Arrays in pinned
memory are not copied by the host. A small call is one chunk and waits once.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np

from pooling_engine.backends.cupy_backend.device.protocols import (
    Device,
    HostArray,
    StagingBuffer,
)
from pooling_engine.backends.cupy_backend.planning.chunks import (
    FLAG_BYTES,
    ArrayPart,
    Chunk,
    ChunkLayout,
    Steps,
)
from pooling_engine.backends.cupy_backend.transfers.buffers import BUFFERS_PER_CALL, BufferPool
from pooling_engine.backends.protocols import DeviceArray
from pooling_engine.errors import DeviceMemoryError
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.runtime.threads import SHARED_BYTES, run_range

BUFFER_BYTES = 16 << 20  # of a staging buffer, on either side
MAX_BUFFERS = 8  # for all calls together
MIN_CHUNK_BYTES = 1 << 20  # smaller chunks would not pay for their launches
SEGMENT_BYTES = 4 << 20  # per copy of an array whose planes exceed a buffer
MIN_PINNED_BYTES = 256 << 10  # a smaller pinned array is cheaper to copy together with the others
MAX_SCHEDULES = 512

Finish = Callable[[], bool]  # waits for work that was begun; returns whether its flag is set
Begin = Callable[[StagingBuffer], Finish]


class Schedule(NamedTuple):
    """Chunks of the calls of a plan.

    Attributes:
        planes: planes per chunk, except that the last may have fewer; 0 if not even one fits.
        chunks: chunks by their number of planes.
    """

    planes: int
    chunks: dict[int, Chunk]


class Staging:
    """Runs calls on host arrays on a device. Safe to use from many threads.

    Args:
        device: device to compute on.
        buffer_bytes: size of a staging buffer on either side; 0 disables staging.
        max_buffers: maximum number of buffers, which limits the pinned memory.

    Attributes:
        buffers: pool of staging buffers.
    """

    def __init__(
        self, device: Device, buffer_bytes: int = BUFFER_BYTES, max_buffers: int = MAX_BUFFERS
    ) -> None:
        self._device = device
        self._buffer_bytes = buffer_bytes
        self.buffers = BufferPool(device, buffer_bytes, max_buffers)
        self._schedules: dict[Any, Schedule] = {}

    @property
    def schedule_count(self) -> int:
        """Number of cached schedules."""
        return len(self._schedules)

    def run(
        self,
        plan: PoolPlan,
        steps: Steps,
        inputs: dict[str, HostArray],
        outputs: dict[str, HostArray],
        scratch: Mapping[str, np.dtype[Any]],
    ) -> bool | None:
        """Compute a call whose planes fit in a staging buffer.

        Args:
            plan: plan of the call; it has at least one plane.
            steps: function from the plan of a chunk to its launches. All arrays begin at multiples
                of 256 bytes. The launches must be the same for all calls of the plan with the same
                names of arrays and scratch arrays.
            inputs: C-contiguous input arrays by name.
            outputs: C-contiguous result arrays by name.
            scratch: see `ChunkLayout`.

        Returns:
            Whether a kernel set the error flag. None if nothing was done, because no plane fits.
        """
        arrays = inputs | outputs
        pinned = tuple([name for name, array in arrays.items() if self._is_pinned(array)])
        key = plan, tuple(arrays), tuple(scratch), pinned
        schedule = self._schedules.get(key)
        if schedule is None:
            layout = ChunkLayout(plan, _sizes(inputs), _sizes(outputs), scratch, pinned)
            schedule = self._schedule(layout, steps)
            if len(self._schedules) >= MAX_SCHEDULES:
                self._schedules.clear()
            self._schedules[key] = schedule
        if not schedule.planes:
            return None
        flat = {name: _flat(array) for name, array in arrays.items()}
        if schedule.planes == plan.outer:
            with self.buffers.borrow(1) as (buffer,):
                return _begin_chunk(schedule.chunks[plan.outer], 0, flat, buffer)()
        firsts = range(0, plan.outer, schedule.planes)
        with self.buffers.borrow(min(len(firsts), BUFFERS_PER_CALL)) as buffers:
            chunks = (schedule.chunks[min(schedule.planes, plan.outer - at)] for at in firsts)
            begins = (
                partial(_begin_chunk, *each, flat) for each in zip(chunks, firsts, strict=True)
            )
            return _run_in_turns(buffers, begins)

    def upload(self, source: HostArray, target: DeviceArray) -> None:
        """Copy a C-contiguous array to the device; return when it is there.

        A large array is copied in segments through staging buffers, unless it is pinned or there is
        no memory for a buffer.
        """
        if self._uses_segments(source):
            with suppress(DeviceMemoryError):
                self._copy_segments(_begin_upload, source, target)
                return
        self._device.upload(source, target)
        self._device.wait()

    def download(self, source: DeviceArray, target: HostArray) -> None:
        """Copy a device array to a C-contiguous host array, in segments as `upload` does."""
        if self._uses_segments(target):
            with suppress(DeviceMemoryError):
                self._copy_segments(_begin_download, target, source)
                return
        self._device.download(source, target)

    def _is_pinned(self, array: HostArray) -> bool:
        """Return whether an array is pinned and large enough for a copy of its own."""
        return array.nbytes >= MIN_PINNED_BYTES and self._device.is_pinned(array)

    def _schedule(self, layout: ChunkLayout, steps: Steps) -> Schedule:
        """Return at least two chunks per buffer, unless they would be small."""
        planes = layout.plan.outer
        least = math.ceil(MIN_CHUNK_BYTES / layout.plane_bytes)
        even = math.ceil(planes / (2 * BUFFERS_PER_CALL))
        count = min(layout.planes_within(self._buffer_bytes), max(least, even), planes)
        sizes = {count, planes % count} - {0} if count else ()
        return Schedule(count, {size: layout.chunk(size, steps) for size in sizes})

    def _uses_segments(self, array: HostArray) -> bool:
        is_large = min(array.nbytes, self._buffer_bytes) > SEGMENT_BYTES
        return is_large and not self._is_pinned(array)

    def _copy_segments(
        self,
        begin: Callable[[HostArray, int, StagingBuffer], Finish],
        host: HostArray,
        device: DeviceArray,
    ) -> None:
        """Copy a large array in either direction."""
        self._device.wait()  # for the kernels that compute the array or still use its memory
        flat, address = _flat(host), self._device.address(device)
        firsts = range(0, flat.size, SEGMENT_BYTES)
        with self.buffers.borrow(BUFFERS_PER_CALL) as buffers:
            segments = ((flat[at : at + SEGMENT_BYTES], address + at) for at in firsts)
            _run_in_turns(buffers, (partial(begin, *segment) for segment in segments))


def _run_in_turns(buffers: Sequence[StagingBuffer], begins: Iterable[Begin]) -> bool:
    """Begin each piece of work on the next buffer, after that buffer's previous work is finished.

    Returns:
        Whether any error flag is set.
    """
    pending: deque[Finish] = deque()
    has_error = False
    for begin, buffer in zip(begins, cycle(buffers), strict=False):
        if len(pending) == len(buffers):
            has_error |= pending.popleft()()
        pending.append(begin(buffer))
    while pending:
        has_error |= pending.popleft()()
    return has_error


def _begin_chunk(
    chunk: Chunk, first: int, arrays: dict[str, HostArray], buffer: StagingBuffer
) -> Finish:
    """Enqueue the copies and launches of a chunk.

    Args:
        chunk: the chunk.
        first: its first plane in the call.
        arrays: bytes of the call's arrays by name.
        buffer: an idle buffer.
    """

    def bytes_of(part: ArrayPart) -> HostArray:
        begin = part.nbytes // chunk.planes * first
        return arrays[part.name][begin : begin + part.nbytes]

    host, base = buffer.host, buffer.device_address
    for part in chunk.inputs:
        copy_bytes(bytes_of(part), host[part.offset : part.offset + part.nbytes])
    if chunk.flag is not None:
        host[chunk.flag : chunk.flag + FLAG_BYTES] = 0
    for part in chunk.pinned_inputs:
        buffer.upload(bytes_of(part).ctypes.data, base + part.offset, part.nbytes)
    begin, end = chunk.upload
    if begin < end:
        buffer.upload(buffer.host_address + begin, base + begin, end - begin)
    for launch, offsets in chunk.launches:
        buffer.launch(launch, *(None if offset is None else base + offset for offset in offsets))
    for part in chunk.pinned_outputs:
        buffer.download(base + part.offset, bytes_of(part).ctypes.data, part.nbytes)
    begin, end = chunk.download
    if begin < end:
        buffer.download(base + begin, buffer.host_address + begin, end - begin)

    def finish() -> bool:
        buffer.wait()
        for part in chunk.outputs:
            copy_bytes(host[part.offset : part.offset + part.nbytes], bytes_of(part))
        flag = chunk.flag
        return flag is not None and any(host[flag : flag + FLAG_BYTES].tobytes())

    return finish


def _begin_upload(segment: HostArray, address: int, buffer: StagingBuffer) -> Finish:
    copy_bytes(segment, buffer.host[: segment.size])
    buffer.upload(buffer.host_address, address, segment.size)

    def finish() -> bool:
        buffer.wait()
        return False

    return finish


def _begin_download(segment: HostArray, address: int, buffer: StagingBuffer) -> Finish:
    buffer.download(address, buffer.host_address, segment.size)

    def finish() -> bool:
        buffer.wait()
        copy_bytes(buffer.host[: segment.size], segment)
        return False

    return finish


def _sizes(arrays: Mapping[str, HostArray]) -> dict[str, int]:
    return {name: array.nbytes for name, array in arrays.items()}


def _flat(array: HostArray) -> HostArray:
    """Return the bytes of a C-contiguous array."""
    return array.reshape(-1).view(np.uint8)


def copy_bytes(source: HostArray, target: HostArray) -> None:
    """Copy bytes, with several threads if there are many."""
    size = source.size
    if 2 * size < SHARED_BYTES:  # `run_range` would use one thread, and is slower
        np.copyto(target, source)
        return
    run_range(lambda begin, end: np.copyto(target[begin:end], source[begin:end]), size, 2 * size)
