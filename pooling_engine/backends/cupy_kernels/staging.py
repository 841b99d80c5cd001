"""Arrays of the host on their way to the card and back: in slabs of planes, through lanes.

A slab is copied into a lane's memory, which the card reads and writes by itself; while one lane
uploads, another computes, and the next is filled. Nothing passes from lane to lane. A small call is
one slab, through memory that is there already, and waits once.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import cycle
from typing import NamedTuple

import numpy as np

from pooling_engine.backends.cupy_kernels.card import Device, HostArray, Lane
from pooling_engine.backends.cupy_kernels.launches import Launch
from pooling_engine.backends.cupy_kernels.slabs import MARK_BYTES, Layout, slab_of
from pooling_engine.errors import DeviceMemoryError
from pooling_engine.plan import PoolPlan
from pooling_engine.threads import run_range

LANE_BYTES = 16 << 20  # of a lane, in either memory
LANES = 8  # at most, of all calls together
LANES_OF_A_CALL = 3  # one uploads, one computes, one downloads
SPARE_LANES = 2  # that no call takes beside its first: others need not wait for its end
SLAB_BYTES = 1 << 20  # no less where a call is cut: each slab costs some launches


class Step(NamedTuple):
    """A launch, and the names of the arrays that it takes; of one that is not there, nothing."""

    launch: Launch
    arrays: tuple[str, ...]


Steps = Callable[[PoolPlan], Sequence[Step]]


class Staging:
    """Takes calls on arrays of the host to a card. For use by many threads at once.

    Args:
        device: the card.
        lane_bytes: of a lane, in either memory; it must hold a plane (channels last: an item of
            the batch) of a call.
        lanes: how many there are at most, which bounds the memory that is locked.
    """

    def __init__(self, device: Device, lane_bytes: int = LANE_BYTES, lanes: int = LANES) -> None:
        self._device = device
        self._lane_bytes, self._most = lane_bytes, lanes
        self._idle: list[Lane] = []
        self._count = 0  # of lanes, those in use included
        self._changed = threading.Condition()

    def takes(self, layout: Layout) -> bool:
        """Whether a plane of the call fits into a lane."""
        return layout.planes_in(self._lane_bytes) > 0

    def run(self, layout: Layout, steps: Steps) -> bool:
        """Computes a call.

        Args:
            layout: the call.
            steps: what is launched for a slab, given its plan; all arrays begin at multiples of
                256 bytes. They may name "doubt", where kernels leave a mark.

        Returns:
            Whether a kernel left a mark.
        """
        planes, count = layout.plan.outer, self._planes(layout)
        cuts = [(begin, min(begin + count, planes)) for begin in range(0, planes, count)]
        pending: deque[Callable[[], bool]] = deque()
        is_marked = False
        with self._borrow(min(len(cuts), LANES_OF_A_CALL)) as lanes:
            for cut, lane in zip(cuts, cycle(lanes), strict=False):
                if len(pending) == len(lanes):
                    is_marked |= pending.popleft()()
                pending.append(_begin(lane, layout, steps, *cut))
            while pending:
                is_marked |= pending.popleft()()
        return is_marked

    def trim(self) -> None:
        """Frees the lanes that are not in use."""
        with self._changed:
            dropped, self._idle = self._idle, []
            self._count -= len(dropped)
            self._changed.notify_all()

    def _planes(self, layout: Layout) -> int:
        """How many planes make a slab: at least two slabs for each lane, unless they are small."""
        least = math.ceil(SLAB_BYTES / layout.plane_bytes)
        even = math.ceil(layout.plan.outer / (2 * LANES_OF_A_CALL))
        return min(layout.planes_in(self._lane_bytes), max(least, even))

    @contextmanager
    def _borrow(self, wanted: int) -> Iterator[list[Lane]]:
        """At least one lane, and more only where they are free."""
        lanes = self._take(wanted) if wanted else []
        try:
            yield lanes
        except BaseException:
            done = [lane for lane in lanes if _is_done(lane)]
            self._give_back(done, len(lanes) - len(done))
            raise
        self._give_back(lanes, 0)

    def _take(self, wanted: int) -> list[Lane]:
        with self._changed:
            self._changed.wait_for(lambda: self._idle or self._count < self._most)
            free = len(self._idle) + self._most - self._count
            wanted = min(wanted, max(1, free - SPARE_LANES))
            lanes = [self._idle.pop() for _ in range(min(wanted, len(self._idle)))]
            missing = wanted - len(lanes)
            self._count += missing
        try:
            while missing:
                lanes.append(self._device.lane(self._lane_bytes))
                missing -= 1
        except DeviceMemoryError:
            self._give_back([], missing)
            return lanes or self._wait_for_one()
        except BaseException:
            self._give_back(lanes, missing)
            raise
        return lanes

    def _wait_for_one(self) -> list[Lane]:
        """The next lane that is given back, where there is no room for another."""
        with self._changed:
            self._changed.wait_for(lambda: self._idle or not self._count)
            if self._idle:
                return [self._idle.pop()]
            self._count += 1
        try:
            return [self._device.lane(self._lane_bytes)]
        except BaseException:
            self._give_back([], 1)
            raise

    def _give_back(self, lanes: list[Lane], lost: int) -> None:
        with self._changed:
            self._idle += lanes
            self._count -= lost
            self._changed.notify_all()


def _is_done(lane: Lane) -> bool:
    """Whether nothing is under way any more, once that can be said."""
    with suppress(Exception):
        lane.wait()
        return True
    return False


def _begin(lane: Lane, layout: Layout, steps: Steps, begin: int, end: int) -> Callable[[], bool]:
    """Sends planes on their way; returns what waits for them, and says whether they have a mark."""
    places, back = layout.places_of(end - begin)
    for name, rows in layout.inputs.items():
        _copy(rows[begin:end], lane.host[places[name] :])
    doubt = places["doubt"]
    mark = slice(doubt, doubt + MARK_BYTES)
    lane.host[mark] = 0
    lane.upload(0, mark.stop)
    for launch, names in steps(slab_of(layout.plan, end - begin)):
        lane.launch(launch, *(places.get(name) for name in names))
    lane.download(doubt, back)

    def finish() -> bool:
        lane.wait()
        for name, rows in layout.outputs.items():
            _copy(lane.host[places[name] :], rows[begin:end])
        return bool(lane.host[mark].any())

    return finish


def _copy(source: HostArray, target: HostArray) -> None:
    """Copies as many bytes as the shorter of the two has."""
    source, target = source.reshape(-1), target.reshape(-1)
    size = min(source.size, target.size)
    run_range(lambda begin, end: np.copyto(target[begin:end], source[begin:end]), size, 2 * size)
