"""Counters and histograms of a process, as plain numbers that other processes can add up."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

BOUNDS_S = (
    *(1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)

CallLabels = tuple[str, str, str]  # rpc, mode, code


def _buckets() -> list[float]:
    """Return the counts of a histogram, the last one above all bounds, and the sum."""
    return [0.0] * (len(BOUNDS_S) + 2)


def _observe(histogram: list[float], seconds: float) -> None:
    histogram[bisect_left(BOUNDS_S, seconds)] += 1
    histogram[-1] += seconds


@dataclass(slots=True)
class Numbers:
    """The numbers of one or several processes.

    Attributes:
        calls: histogram of the durations of calls, by labels.
        stages: histogram of the durations of each stage.
        refusals: rejected calls, by reason.
        received_bytes: bytes of requests.
        sent_bytes: bytes of replies.
        in_flight_calls: calls in flight now.
        in_flight_bytes: bytes reserved for them.
    """

    calls: dict[CallLabels, list[float]] = field(default_factory=lambda: defaultdict(_buckets))
    stages: dict[str, list[float]] = field(
        default_factory=lambda: {"queue": _buckets(), "compute": _buckets()}
    )
    refusals: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    received_bytes: int = 0
    sent_bytes: int = 0
    in_flight_calls: int = 0
    in_flight_bytes: int = 0

    def add(self, other: Numbers) -> None:
        """Add the numbers of another process."""
        for labels, histogram in other.calls.items():
            self.calls[labels] = _sum(self.calls.get(labels), histogram)
        for stage, histogram in other.stages.items():
            self.stages[stage] = _sum(self.stages.get(stage), histogram)
        for reason, count in other.refusals.items():
            self.refusals[reason] = self.refusals.get(reason, 0) + count
        self.received_bytes += other.received_bytes
        self.sent_bytes += other.sent_bytes
        self.in_flight_calls += other.in_flight_calls
        self.in_flight_bytes += other.in_flight_bytes


def total(parts: Iterable[Numbers]) -> Numbers:
    """Return the sum of the numbers of several processes."""
    whole = Numbers()
    for part in parts:
        whole.add(part)
    return whole


class Metrics:
    """The numbers of this process; its methods may be called from any thread."""

    def __init__(self) -> None:
        self._numbers = Numbers()
        self._lock = threading.Lock()

    def call(
        self,
        labels: CallLabels,
        total_s: float,
        queue_s: float | None,
        compute_s: float | None,
        received_bytes: int,
        sent_bytes: int,
    ) -> None:
        """Count a call, or an item of a stream.

        Args:
            labels: method, mode and status code.
            total_s: seconds from its start until its reply is built.
            queue_s: seconds from the arrival of its message to its computation; None if it was not
                computed.
            compute_s: seconds of its computation; None as well.
            received_bytes: size of the request.
            sent_bytes: size of the reply.
        """
        with self._lock:
            numbers = self._numbers
            _observe(numbers.calls[labels], total_s)
            if queue_s is not None:
                _observe(numbers.stages["queue"], queue_s)
            if compute_s is not None:
                _observe(numbers.stages["compute"], compute_s)
            numbers.received_bytes += received_bytes
            numbers.sent_bytes += sent_bytes

    def refuse(self, reason: str) -> None:
        """Count a rejected call or item."""
        with self._lock:
            self._numbers.refusals[reason] += 1

    def numbers(self, in_flight_calls: int, in_flight_bytes: int) -> Numbers:
        """Return a copy of the numbers, with the present values of those that change both ways."""
        with self._lock:
            copy = total([self._numbers])
        copy.in_flight_calls, copy.in_flight_bytes = in_flight_calls, in_flight_bytes
        return _plain(copy)


def _plain(numbers: Numbers) -> Numbers:
    """Replace the dictionaries by plain ones, which can be pickled."""
    numbers.calls, numbers.refusals = dict(numbers.calls), dict(numbers.refusals)
    return numbers


def _sum(first: list[float] | None, second: list[float]) -> list[float]:
    return [a + b for a, b in zip(first or [0.0] * len(second), second, strict=True)]
