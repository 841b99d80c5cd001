"""Results of a load test as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import grpc
import numpy as np

from pooling_loadtest.calls import NO_STATUS, Calls, percentiles
from pooling_loadtest.results import Results
from pooling_loadtest.runs import CapacityRow, Objective, Run
from pooling_loadtest.texts import counted, short

_COLUMNS = 100
_AT = (50.0, 90.0, 99.0, 99.9, 100.0)
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode} | {NO_STATUS: "NO REPLY"}


def summary(results: Results) -> str:
    """Return the results as text of at most 100 columns."""
    run, calls = results.run, results.calls
    lines = [f"{run.title}", f"{', '.join(run.targets)}, {_processes(run)}", ""]
    lines += _totals(results)
    lines += ["", *_latencies(results)]
    errors = _errors(calls)
    if errors:
        lines += ["", "errors", *errors]
    if run.verify["fraction"]:
        checked, wrong = run.verify["checked"], run.verify["wrong"]
        lines += ["", f"verified    {counted(checked, 'reply', 'replies')}, {wrong:,} wrong"]
    if run.slo is not None and run.capacity is None:
        lines += ["", f"objective   {run.slo['text']}: {'met' if run.slo['met'] else 'MISSED'}"]
    if run.capacity is not None:
        lines += ["", f"capacity    {capacity_text(run.capacity, run.slo)}"]
    for sentence in run.distortions:
        lines += ["", _wrapped(f"DISTORTED   {sentence}")]
    if run.stopped is not None:
        lines += ["", _wrapped(f"stopped     {run.stopped}")]
    return "\n".join(lines)


def capacity_text(capacity: CapacityRow, slo: Objective | None) -> str:
    """Return the result of a search for the capacity as one sentence."""
    text, windows = "" if slo is None else slo["text"], capacity["windows"]
    if not capacity["rate"]:
        lowest = min((window["rate"] for window in windows), default=0.0)
        return f"{text} was not met at any rate; the lowest was {short(lowest)} calls/s"
    found = (
        f"{short(capacity['rate'])} calls/s with {text}, between {short(capacity['low'])} and "
        f"{short(capacity['high'])} by the last 3 of {len(windows)} windows"
    )
    return found if capacity["settled"] else f"{found}, which do not agree within 10 %"


def _processes(run: Run) -> str:
    return counted(run.processes, "generator process", "generator processes")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _COLUMNS, subsequent_indent=" " * 12, break_long_words=False)


def _totals(results: Results) -> list[str]:
    run, calls = results.run, results.calls
    answered = int(np.count_nonzero(calls.is_ok))
    elapsed_s = max(run.elapsed_s, 1e-9)
    moved = int(calls.sent_bytes[calls.is_ok].sum() + calls.received_bytes.sum())
    lines = [
        f"calls       {len(calls):,} in {run.elapsed_s:.2f} s, {answered:,} answered",
        f"rate        {answered / elapsed_s:,.1f} calls/s, {moved / elapsed_s / 1e6:,.1f} MB/s",
    ]
    if run.loop == "open":
        sent = calls.lag_ns[calls.lag_ns >= 0]
        lines.append(f"lag         p99 {_ms(percentiles(sent, [99])[0])}, of the generator")
    if run.generator_cpu and run.capacity is None:
        used = " and ".join(f"{100 * share:.0f} %" for share in run.generator_cpu)
        lines.append(f"generator   {used} of a core")
    return lines


def _latencies(results: Results) -> list[str]:
    run, calls = results.run, results.calls
    since = "the scheduled time" if run.loop == "open" else "sending"
    names = ["p50", "p90", "p99", "p99.9", "max"]
    width = max(12, *(len(kind.name) + 2 for kind in run.kinds))
    lines = [
        f"latency from {since} to the reply, of calls that were answered",
        f"{'':{width}}" + "".join(f"{name:>11}" for name in names),
    ]
    latencies, is_ok = calls.latency_ns, calls.is_ok
    if len(run.kinds) > 1:
        lines.append(_row("all", width, percentiles(latencies[is_ok], _AT)))
    for number, kind in enumerate(run.kinds):
        mine = latencies[is_ok & (calls.kind == number)]
        lines.append(_row(kind.name, width, percentiles(mine, _AT)))
    for name in ("queue", "compute", "total"):
        column = getattr(calls, f"{name}_us")
        known = column[~np.isnan(column)]
        if known.size:
            lines.append(_row(f"server {name}", max(width, 15), percentiles(known * 1e3, _AT)))
    return lines


def _row(name: str, width: int, values_ns: Sequence[float] | np.ndarray) -> str:
    return f"{name:{width}}" + "".join(f"{_ms(value):>11}" for value in values_ns)


def _errors(calls: Calls) -> list[str]:
    failed = calls.status[~calls.is_ok]
    codes, counts = np.unique(failed, return_counts=True)
    return [
        f"  {_NAMES.get(int(code), str(code)):20} {count:,} ({100 * count / len(calls):.2f} %)"
        for code, count in zip(codes, counts, strict=True)
    ]


def _ms(value_ns: float) -> str:
    return "-" if np.isnan(value_ns) else f"{short(value_ns / 1e6)} ms"


def is_passed(results: Results) -> bool:
    """Return whether a test has passed: objective met, no answer wrong, server alive."""
    run = results.run
    is_alive = run.stopped in (None, "interrupted") and bool(np.any(results.calls.is_ok))
    return is_alive and not run.verify["wrong"] and (run.slo is None or bool(run.slo["met"]))
