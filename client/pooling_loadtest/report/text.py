"""Sentences and numbers of the report."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pooling_loadtest.runs import Run
from pooling_loadtest.texts import counted

Grade = Literal["passed", "warned", "failed"]

_ARRIVALS = {
    "constant": "evenly spaced arrivals",
    "poisson": "Poisson arrivals",
    "step": "stepped Poisson arrivals",
    "ramp": "Poisson arrivals on a ramp",
    "sweep": "sweep of Poisson arrivals",
    "search": "search for the capacity",
}


def load(run: Run) -> str:
    """Return the loop and its load."""
    if run.loop == "closed":
        callers = "1 caller that waits" if run.callers == 1 else f"{run.callers} callers that wait"
        return f"Closed loop, {callers} for their replies"
    kind = _ARRIVALS.get(run.schedule["kind"], run.schedule["kind"])
    found = [segment["rate"] for segment in run.schedule.get("segments", ())]
    if not found or run.schedule["kind"] == "search":
        return f"Open loop, {kind}"
    if min(found) == max(found):
        return f"Open loop, {kind} at {found[0]:,.4g} calls/s"
    return f"Open loop, {kind} from {found[0]:,.4g} to {found[-1]:,.4g} calls/s"


def started(run: Run) -> str:
    """Return the start in UTC."""
    return datetime.fromtimestamp(run.started_unix_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def verdict(run: Run, found: dict[str, Any]) -> tuple[Grade, str, list[str]]:
    """Return the grade of a run, a headline, and sentences with the reasons."""
    bad, notes, warnings = [], [], []
    checked, wrong = run.verify["checked"], run.verify["wrong"]
    if wrong:
        verb = "was" if wrong == 1 else "were"
        bad.append(
            f"{wrong:,} of {counted(checked, 'checked reply', 'checked replies')} {verb} wrong."
        )
    elif checked == 1:
        notes.append("1 reply was checked; it is right.")
    elif checked:
        notes.append(f"{checked:,} replies were checked; all are right.")
    else:
        notes.append("No reply was checked.")
    if found["failed"]:
        percent = number(found["errors_percent"])
        calls = counted(found["calls"], "call", "calls")
        notes.append(f"{found['failed']:,} of {calls} failed ({percent} %).")
    if run.slo is not None and not run.slo["met"]:
        bad.append(f"The objective {run.slo['text']} was missed.")
    elif run.slo is not None:
        notes.insert(0, f"The objective {run.slo['text']} was met.")
    if run.stopped == "interrupted":
        warnings.append("The run was interrupted; the figures cover the time until then.")
    elif run.stopped:
        bad.append(f"The run ended early: {run.stopped}.")
    if not found["answered"]:
        bad.append("No call was answered.")
    warnings += run.distortions
    if bad:
        return "failed", "Failed", bad + warnings + notes
    if run.distorted:
        return "warned", "Distorted by the generator", warnings + notes
    if warnings:
        return "warned", "Incomplete", warnings + notes
    if found["failed"] and run.slo is None:
        return "warned", "Completed with errors", [*notes, "No objective was set."]
    return "passed", "Passed" if run.slo or checked else "Completed", notes


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with so many significant digits, and with separators; "–" for None."""
    if value is None:
        return "–"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def ms(value: float | None) -> str:
    """Return a time given in milliseconds, in the best unit."""
    if value is None:
        return "–"
    if abs(value) >= 1000:
        return f"{number(value / 1000)} s"
    return f"{number(value)} ms" if abs(value) >= 0.1 or not value else f"{value * 1000:.3g} µs"


def size(count: float) -> str:
    """Return a number of bytes."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= factor:
            return f"{number(count / factor)} {unit}"
    return f"{count:,.0f} B"
