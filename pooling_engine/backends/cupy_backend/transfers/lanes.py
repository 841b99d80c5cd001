"""Lanes: how many there are, who has them, and what becomes of them after an error."""

from __future__ import annotations

import threading
from contextlib import suppress
from types import TracebackType

from pooling_engine.backends.cupy_backend.device.protocols import Device, Lane
from pooling_engine.errors import DeviceMemoryError

LANES_OF_A_CALL = 3  # one uploads, one computes, one downloads
SPARE_LANES = 2  # that no call takes beside its first: others need not wait for its end


class Lanes:
    """Lends the lanes of a card. For use by many threads at once.

    Args:
        device: the card.
        nbytes: of a lane, in either memory.
        most: how many there are at most, which bounds the memory that is locked.
    """

    def __init__(self, device: Device, nbytes: int, most: int) -> None:
        self._device = device
        self._nbytes, self._most = nbytes, most
        self._idle: list[Lane] = []
        self._count = 0  # of lanes, those in use included
        self._changed = threading.Condition()

    def trim(self) -> None:
        """Frees the lanes that are not in use."""
        with self._changed:
            dropped, self._idle = self._idle, []
            self._count -= len(dropped)
            self._changed.notify_all()

    def borrow(self, wanted: int) -> Borrowed:
        """A context manager of at least one lane, and more only where they are free.

        None, if none is wanted.

        Raises:
            DeviceMemoryError: the card has no room for one.
        """
        return Borrowed(self, self._take(wanted) if wanted else [])

    def _take(self, wanted: int) -> list[Lane]:
        with self._changed:
            self._changed.wait_for(self._has_any)
            free = len(self._idle) + self._most - self._count
            wanted = min(wanted, max(1, free - SPARE_LANES))
            lanes = [self._idle.pop() for _ in range(min(wanted, len(self._idle)))]
            missing = wanted - len(lanes)
            self._count += missing
        try:
            while missing:
                lanes.append(self._device.lane(self._nbytes))
                missing -= 1
        except DeviceMemoryError:
            self.give_back([], missing)
            return lanes or self._wait_for_one()
        except BaseException:
            self.give_back(lanes, missing)
            raise
        return lanes

    def _has_any(self) -> bool:
        return bool(self._idle) or self._count < self._most

    def _wait_for_one(self) -> list[Lane]:
        """The next lane that is given back, where there is no room for another."""
        with self._changed:
            self._changed.wait_for(lambda: self._idle or not self._count)
            if self._idle:
                return [self._idle.pop()]
            self._count += 1
        try:
            return [self._device.lane(self._nbytes)]
        except BaseException:
            self.give_back([], 1)
            raise

    def give_back(self, lanes: list[Lane], lost: int) -> None:
        """Ends a loan; of the lanes, so many are lost."""
        with self._changed:
            self._idle += lanes
            self._count -= lost
            self._changed.notify_all()


class Borrowed:
    """Lanes for a block; after an error, they are waited for."""

    __slots__ = ("_lanes", "_owner")

    def __init__(self, owner: Lanes, lanes: list[Lane]) -> None:
        self._owner, self._lanes = owner, lanes

    def __enter__(self) -> list[Lane]:
        return self._lanes

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        done = self._lanes if error is None else [lane for lane in self._lanes if _is_done(lane)]
        self._owner.give_back(done, len(self._lanes) - len(done))


def _is_done(lane: Lane) -> bool:
    """Whether nothing is under way any more, once that can be said."""
    with suppress(Exception):
        lane.wait()
        return True
    return False
