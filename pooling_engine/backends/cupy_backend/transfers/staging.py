"""Arrays of the host on their way to the card and back: in slabs of planes, through lanes.

A slab is copied into a lane's memory, which the card reads and writes by itself; while one lane
uploads, another computes, and the next is filled. Nothing passes from lane to lane. What the card
reaches where it is needs no copy by the host. A small call is one slab, through memory that is
there already, and waits once.
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
    DeviceArray,
    HostArray,
    Lane,
)
from pooling_engine.backends.cupy_backend.planning.chunks import (
    MARK_BYTES,
    Layout,
    Part,
    Slab,
    Steps,
)
from pooling_engine.backends.cupy_backend.transfers.lanes import LANES_OF_A_CALL, Lanes
from pooling_engine.errors import DeviceMemoryError
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.runtime.threads import SHARED_BYTES, run_range

LANE_BYTES = 16 << 20  # of a lane, in either memory
LANES = 8  # at most, of all calls together
SLAB_BYTES = 1 << 20  # no less where a call is cut: each slab costs some launches
PIECE_BYTES = 4 << 20  # of an array that goes to the card as a whole
PINNED_BYTES = 256 << 10  # less is copied beside the rest: that costs less than a copy of its own
MOST_WAYS = 512  # that are remembered

Finish = Callable[[], bool]  # waits for what was begun; says whether it is marked
Begin = Callable[[Lane], Finish]


class Way(NamedTuple):
    """How the calls of a plan go through lanes.

    Attributes:
        planes: of all slabs but the last, which may have fewer; 0: not one fits.
        slabs: by how many planes they have.
    """

    planes: int
    slabs: dict[int, Slab]


class Staging:
    """Takes calls on arrays of the host to a card. For use by many threads at once.

    Args:
        device: the card.
        lane_bytes: of a lane, in either memory; 0: there are none.
        lanes: how many there are at most, which bounds the memory that is locked.
    """

    def __init__(self, device: Device, lane_bytes: int = LANE_BYTES, lanes: int = LANES) -> None:
        self._device = device
        self._lane_bytes = lane_bytes
        self._lanes = Lanes(device, lane_bytes, lanes)
        self._ways: dict[Any, Way] = {}
        self.trim = self._lanes.trim

    def run(
        self,
        plan: PoolPlan,
        steps: Steps,
        inputs: dict[str, HostArray],
        outputs: dict[str, HostArray],
        scratch: Mapping[str, np.dtype[Any]],
    ) -> bool | None:
        """Computes a call whose planes fit in a lane.

        Args:
            plan: of the call; it has planes.
            steps: what is launched for a slab, given its plan; all arrays begin at multiples of
                256 bytes. They may name "doubt", where kernels leave a mark. They are the same for
                all calls of the plan whose arrays, and scratch, have these names.
            inputs: the arrays that are sent, by name, C-contiguous.
            outputs: those that come back.
            scratch: as `Layout` says.

        Returns:
            Whether a kernel left a mark; None if nothing was done, since no plane fits.
        """
        arrays = inputs | outputs
        pinned = tuple([name for name, array in arrays.items() if self._is_pinned(array)])
        key = plan, tuple(arrays), tuple(scratch), pinned
        way = self._ways.get(key)
        if way is None:
            sent, back = _sizes(inputs), _sizes(outputs)
            way = self._way(Layout(plan, sent, back, scratch, pinned), steps)
            if len(self._ways) >= MOST_WAYS:
                self._ways.clear()
            self._ways[key] = way
        if not way.planes:
            return None
        flat = {name: _flat(array) for name, array in arrays.items()}
        if way.planes == plan.outer:
            with self._lanes.borrow(1) as (lane,):
                return _begin(way.slabs[way.planes], 0, flat, lane)()
        firsts = range(0, plan.outer, way.planes)
        with self._lanes.borrow(min(len(firsts), LANES_OF_A_CALL)) as lanes:
            slabs = (way.slabs[min(way.planes, plan.outer - first)] for first in firsts)
            begins = (partial(_begin, *each, flat) for each in zip(slabs, firsts, strict=True))
            return _in_turns(lanes, begins)

    def upload(self, source: HostArray, target: DeviceArray) -> None:
        """Copies a C-contiguous array to the card; returns once it is there.

        A large one goes in pieces through lanes, unless it is pinned or there is no room for one.
        """
        if self._goes_in_pieces(source):
            with suppress(DeviceMemoryError):
                self._carry(_upload, source, target)
                return
        self._device.upload(source, target)
        self._device.wait()

    def download(self, source: DeviceArray, target: HostArray) -> None:
        """Copies to a C-contiguous array of the host, likewise."""
        if self._goes_in_pieces(target):
            with suppress(DeviceMemoryError):
                self._carry(_download, target, source)
                return
        self._device.download(source, target)

    def _is_pinned(self, array: HostArray) -> bool:
        """Whether it is large, and the card reaches it where it is."""
        return array.nbytes >= PINNED_BYTES and self._device.is_pinned(array)

    def _way(self, layout: Layout, steps: Steps) -> Way:
        """At least two slabs for each lane, unless they are small."""
        planes = layout.plan.outer
        least = math.ceil(SLAB_BYTES / layout.plane_bytes)
        even = math.ceil(planes / (2 * LANES_OF_A_CALL))
        count = min(layout.planes_in(self._lane_bytes), max(least, even), planes)
        sizes = {count, planes % count} - {0} if count else ()
        return Way(count, {size: layout.slab(size, steps) for size in sizes})

    def _goes_in_pieces(self, array: HostArray) -> bool:
        return min(array.nbytes, self._lane_bytes) > PIECE_BYTES and not self._is_pinned(array)

    def _carry(
        self, begin: Callable[[HostArray, int, Lane], Finish], host: HostArray, card: DeviceArray
    ) -> None:
        """One large array, all of it, in either direction."""
        self._device.wait()  # for what computes it, or may still use its memory
        flat, address = _flat(host), self._device.address(card)
        firsts = range(0, flat.size, PIECE_BYTES)
        with self._lanes.borrow(LANES_OF_A_CALL) as lanes:
            pieces = ((flat[first : first + PIECE_BYTES], address + first) for first in firsts)
            _in_turns(lanes, (partial(begin, *piece) for piece in pieces))


def _in_turns(lanes: Sequence[Lane], begins: Iterable[Begin]) -> bool:
    """Begins one after the other, each on the next lane, once what that had before is finished.

    Returns:
        Whether any is marked.
    """
    pending: deque[Finish] = deque()
    is_marked = False
    for begin, lane in zip(begins, cycle(lanes), strict=False):
        if len(pending) == len(lanes):
            is_marked |= pending.popleft()()
        pending.append(begin(lane))
    while pending:
        is_marked |= pending.popleft()()
    return is_marked


def _begin(slab: Slab, first: int, arrays: dict[str, HostArray], lane: Lane) -> Finish:
    """Sends the planes of a slab on their way, from `first` on."""

    def share(part: Part) -> HostArray:
        begin = part.nbytes // slab.planes * first
        return arrays[part.name][begin : begin + part.nbytes]

    host, card = lane.host, lane.card_address
    for part in slab.inputs:
        _copy(share(part), host[part.place : part.place + part.nbytes])
    if slab.mark is not None:
        host[slab.mark : slab.mark + MARK_BYTES] = 0
    for part in slab.pinned_inputs:
        lane.upload(share(part).ctypes.data, card + part.place, part.nbytes)
    begin, end = slab.sent
    if begin < end:
        lane.upload(lane.host_address + begin, card + begin, end - begin)
    for launch, places in slab.launches:
        lane.launch(launch, *(None if place is None else card + place for place in places))
    for part in slab.pinned_outputs:
        lane.download(card + part.place, share(part).ctypes.data, part.nbytes)
    begin, end = slab.back
    if begin < end:
        lane.download(card + begin, lane.host_address + begin, end - begin)

    def finish() -> bool:
        lane.wait()
        for part in slab.outputs:
            _copy(host[part.place : part.place + part.nbytes], share(part))
        mark = slab.mark
        return mark is not None and any(host[mark : mark + MARK_BYTES].tobytes())

    return finish


def _upload(piece: HostArray, address: int, lane: Lane) -> Finish:
    _copy(piece, lane.host[: piece.size])
    lane.upload(lane.host_address, address, piece.size)

    def finish() -> bool:
        lane.wait()
        return False

    return finish


def _download(piece: HostArray, address: int, lane: Lane) -> Finish:
    lane.download(address, lane.host_address, piece.size)

    def finish() -> bool:
        lane.wait()
        _copy(lane.host[: piece.size], piece)
        return False

    return finish


def _sizes(arrays: Mapping[str, HostArray]) -> dict[str, int]:
    return {name: array.nbytes for name, array in arrays.items()}


def _flat(array: HostArray) -> HostArray:
    """The bytes of a C-contiguous array."""
    return array.reshape(-1).view(np.uint8)


def _copy(source: HostArray, target: HostArray) -> None:
    """Copies bytes, by several threads where they are many."""
    size = source.size
    if 2 * size < SHARED_BYTES:  # as below, and sooner
        np.copyto(target, source)
        return
    run_range(lambda begin, end: np.copyto(target[begin:end], source[begin:end]), size, 2 * size)
