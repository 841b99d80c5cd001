"""Runs a load test: generators, calls, objective, capacity, and everything that describes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from pooling_loadtest import capacity
from pooling_loadtest.calls import NOT_CHECKED, TIMES, WRONG, Calls
from pooling_loadtest.checking import check_settings
from pooling_loadtest.distortions import distortions
from pooling_loadtest.environment import environment
from pooling_loadtest.errors import MisuseError
from pooling_loadtest.generator import Summary
from pooling_loadtest.metrics import Scraper
from pooling_loadtest.processes import Generators, Outcome
from pooling_loadtest.progress import Watch
from pooling_loadtest.results import Results
from pooling_loadtest.runs import Run
from pooling_loadtest.schedules import Schedule, Segment
from pooling_loadtest.settings import LoadTest
from pooling_loadtest.slo import Slo, parse_slo
from pooling_loadtest.texts import counted, short

_DEFAULT_SLO = "errors<1%"  # of a search without an objective


def run_test(test: LoadTest, slo: Slo | None = None) -> Results:
    """Run a load test.

    Args:
        test: its settings.
        slo: objective of all calls together.

    Returns:
        The results, also after Ctrl-C and after the server has died.

    Raises:
        MisuseError: the settings are invalid.
        TargetError: the server cannot be tested.
    """
    check_settings(test)
    watch = Watch(test.duration_s, test.give_up_s)
    with Scraper(test.metrics_url) as scraper, Generators(test) as generators:
        try:
            outcome = generators.run(test.schedule, watch)
        finally:
            watch.end()
    run = _described(test, generators, outcome.calls, outcome.summaries, test.schedule)
    run.started_unix_ns, run.stopped = outcome.started_unix_ns, outcome.stopped
    if slo is not None:
        duration_s = min(test.duration_s, run.elapsed_s) or test.duration_s
        run.slo = {"text": slo.text, "met": slo.is_met(outcome.calls, duration_s)}
    return Results(run, outcome.calls, scraper.samples(outcome.start_ns))


def find_capacity(test: LoadTest, window_s: float, slo: Slo | None, first_rate: float) -> Results:
    """Search for the highest rate that meets an objective.

    Args:
        test: its settings; schedule, callers and duration do not matter.
        window_s: duration of each window.
        slo: objective of each window; None for less than 1 % errors.
        first_rate: rate of the first window, in calls/s.

    Raises:
        MisuseError: the settings are invalid.
        TargetError: the server cannot be tested.
    """
    check_settings(test)
    if not first_rate > 0:
        raise MisuseError(f"rate is {first_rate:g}; it must be a number of calls/s above 0")
    slo = slo or parse_slo(_DEFAULT_SLO)
    windows: list[Outcome] = []
    segments: list[Segment] = []
    with Scraper(test.metrics_url) as scraper, Generators(test) as generators:

        def measure(rate: float) -> capacity.Window | None:
            schedule = Schedule("search", (Segment(0.0, window_s, rate),))
            watch = Watch(window_s, test.give_up_s)
            try:
                outcome = generators.run(schedule, watch)
            finally:
                watch.end()
            windows.append(outcome)
            start_s = (outcome.start_ns - windows[0].start_ns) / 1e9
            segments.append(Segment(start_s, start_s + window_s, rate))
            if outcome.stopped is not None:
                return None
            return capacity.window_of(rate, outcome.calls, window_s, slo)

        found = capacity.search(measure, first_rate)
    calls, first = _joined(windows), windows[0]
    summaries = [summary for outcome in windows for summary in outcome.summaries]
    schedule = Schedule("search", tuple(segments))
    run = _described(test, generators, calls, summaries, schedule)
    run.started_unix_ns, run.stopped = first.started_unix_ns, windows[-1].stopped
    run.capacity = found.to_row()
    run.slo = {"text": slo.text, "met": found.rate > 0}
    # Windows above the capacity are late by design; those are no reason to mark the others.
    met = [each.met for each in found.windows]
    run.distortions = _distortions_of_windows(windows, met)
    run.distorted = bool(run.distortions)
    return Results(run, calls, scraper.samples(first.start_ns))


def _described(
    test: LoadTest,
    generators: Generators,
    calls: Calls,
    summaries: Sequence[Summary],
    schedule: Schedule | None,
) -> Run:
    checked = int(np.count_nonzero(calls.verified != NOT_CHECKED))
    wrong = int(np.count_nonzero(calls.verified == WRONG))
    reasons = distortions(calls, summaries, schedule is not None)
    return Run(
        title=f"{test.title}: {_load(test, schedule)}",
        started_unix_ns=0,
        duration_s=test.duration_s if schedule is None else schedule.duration_s,
        elapsed_s=max(0.0, float(calls.done_ns.max(initial=0)) / 1e9),
        command=list(test.command),
        seed=test.seed,
        loop="closed" if schedule is None else "open",
        schedule={"kind": "closed", "segments": []} if schedule is None else schedule.to_row(),
        callers=test.callers if schedule is None else None,
        processes=test.processes,
        max_in_flight=test.max_in_flight,
        protocol=test.protocol,
        targets=list(test.targets),
        kinds=_with_sizes(generators, calls),
        server_info=generators.server_info,
        environment=environment(),
        verify={"fraction": test.verify, "checked": checked, "wrong": wrong},
        distorted=bool(reasons),
        distortions=reasons,
        generator_cpu=[round(summary.cpu, 3) for summary in summaries],
    )


def _load(test: LoadTest, schedule: Schedule | None) -> str:
    """Return the loop and its load, for titles."""
    if schedule is None:
        return f"closed loop, {counted(test.callers or 0, 'caller', 'callers')}"
    rates = [segment.rate for segment in schedule.segments]
    low, high = min(rates), max(rates)
    text = short(low) if low == high else f"{short(rates[0])} to {short(rates[-1])}"
    if schedule.kind == "search":
        return "open loop, search for the capacity"
    return f"open loop, {schedule.kind} arrivals at {text} calls/s"


def _with_sizes(generators: Generators, calls: Calls) -> list[Any]:
    """Return the kinds with the size of a reply that was received."""
    kinds = []
    for number, kind in enumerate(generators.kinds):
        sizes = calls.received_bytes[(calls.kind == number) & calls.is_ok]
        size = int(sizes[-1]) if sizes.size else kind.received_bytes
        kinds.append(dataclasses.replace(kind, received_bytes=size))
    return kinds


def _joined(windows: Sequence[Outcome]) -> Calls:
    """Return the calls of all windows, with times from the start of the first."""
    for outcome in windows:
        offset = outcome.start_ns - windows[0].start_ns
        for name in TIMES:
            column = getattr(outcome.calls, name)
            column[column >= 0] += offset
    return Calls.joined([outcome.calls for outcome in windows])


def _distortions_of_windows(windows: Sequence[Outcome], met: Sequence[bool]) -> list[str]:
    """Return the distortions of the best window that met the objective."""
    good = [outcome for outcome, is_met in zip(windows, met, strict=False) if is_met]
    if not good:
        return []
    best = max(good, key=lambda outcome: len(outcome.calls))
    return distortions(best.calls, best.summaries, is_open=True)
