"""Statistics of the models of a process: requests, and the time that they took."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from pooling_server.oip.models import MODELS


@dataclass(slots=True)
class ModelCounts:
    """Requests of one model.

    Attributes:
        successes: requests that were answered.
        success_ns: time from their decoding to their reply.
        failures: requests that were invalid or failed.
        failure_ns: time until their error.
        last_ms: time of the last answered request, in milliseconds since 1970.
    """

    successes: int = 0
    success_ns: int = 0
    failures: int = 0
    failure_ns: int = 0
    last_ms: int = 0


class Statistics:
    """Counts of all models of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = {name: ModelCounts() for name in MODELS}

    def add(self, name: str, duration_ns: int, *, is_success: bool) -> None:
        """Count a request; those of unknown models are left out."""
        counts = self._counts.get(name)
        if counts is None:
            return
        with self._lock:
            if is_success:
                counts.successes += 1
                counts.success_ns += duration_ns
                counts.last_ms = time.time_ns() // 1_000_000
            else:
                counts.failures += 1
                counts.failure_ns += duration_ns

    def of(self, names: Iterable[str]) -> list[tuple[str, ModelCounts]]:
        """Return the counts of models."""
        return [(name, self._counts[name]) for name in names]


class RequestTimer:
    """Measures and counts one request.

    Args:
        statistics: counts of all models.
        name: name of the model; it may be set later.
    """

    def __init__(self, statistics: Statistics, name: str = "") -> None:
        self.name = name
        self._statistics, self._start_ns = statistics, time.perf_counter_ns()

    def end(self, *, is_success: bool) -> None:
        """Count the request."""
        duration_ns = time.perf_counter_ns() - self._start_ns
        self._statistics.add(self.name, duration_ns, is_success=is_success)
