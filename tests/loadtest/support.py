"""Short load tests."""

from __future__ import annotations

from typing import Any

from pooling_loadtest.results import Results
from pooling_loadtest.running import run_test
from pooling_loadtest.schedules import schedule_of
from pooling_loadtest.settings import KindOfCall, LoadTest
from pooling_loadtest.slo import parse_slo

SPEC = {"mode": "max", "kernel": 2}
SMALL = KindOfCall(name="small", shape=(1, 2, 8, 8), spec=SPEC)


def load_test(target: str, **settings: Any) -> LoadTest:
    """Return a load test of small calls: 100 calls/s for half a second, unless set otherwise."""
    duration_s = settings.pop("duration_s", 0.5)
    rate = settings.pop("rate", 100)
    schedule = None
    if settings.get("callers") is None:
        schedule = schedule_of(settings.pop("arrivals", "constant"), rate, duration_s)
    defaults: dict[str, Any] = {"title": "test", "kinds": (SMALL,), "callers": None}
    return LoadTest(
        **defaults
        | {"targets": (target,), "schedule": schedule, "duration_s": duration_s}
        | settings
    )


def run(target: str, slo: str | None = None, **settings: Any) -> Results:
    """Run a load test of `load_test`."""
    return run_test(load_test(target, **settings), None if slo is None else parse_slo(slo))
