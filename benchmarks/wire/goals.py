"""Goals of the service, and their verdicts on measured rows."""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

from benchmarks.wire import suite

Row = dict[str, Any]
MIB = 1 << 20


class Verdict(NamedTuple):
    """Verdict on one goal.

    Attributes:
        figure: the measured figure, or a dash if nothing was measured.
        is_met: None if nothing was measured.
    """

    what: str
    figure: str
    goal: str
    is_met: bool | None

    def __str__(self) -> str:
        return {True: "met", False: "**missed**", None: "not measured"}[self.is_met]


def verdicts(rows: list[Row]) -> list[Verdict]:
    """Return the verdict on every goal; a ratio is the median of the ratios of the rounds."""
    seed, layer, load = suite.SEED.name, suite.LAYER.name, f"{suite.SEED.name} at 16"
    return [
        _ratio(rows, seed, (suite.UNARY, suite.ECHO), "p50", 1.25),
        _ratio(rows, load, (suite.UNARY, suite.ECHO), "calls/s", 0.85, is_least=True),
        _ratio(rows, "many", (suite.MANY_STREAM, suite.UNARY), "calls/s", 2.5, is_least=True),
        _ratio(rows, layer, (suite.STREAM, suite.ECHO_STREAM), "p50", 1.3),
        _ratio(rows, layer, (suite.STREAM, suite.FLIGHT), "p50", 1),
        _ratio(rows, layer, (suite.NAIVE, suite.STREAM), "p50", 3, is_least=True),
        _slack(rows, suite.SHARED, ()),
        _slack(rows, suite.SHARED_COPIED, (suite.COPY_IN, suite.COPY_OUT)),
        _memory(rows, "server", suite.LAYER, 64 * MIB),
        _memory(rows, "server", suite.UNARY_60, 2.5 * suite.UNARY_60.request_bytes),
        _memory(rows, "client", suite.UNARY_60, 2.5 * suite.UNARY_60.request_bytes),
    ]


def rounds_of(rows: list[Row], group: str, transport: str) -> list[float]:
    """Return the milliseconds or calls per second of each round; empty if not measured."""
    wanted = group, transport
    return next(
        (row["rounds"] for row in rows if (row.get("group"), row["transport"]) == wanted), []
    )


def _ratio(rows, group, transports, unit, limit, *, is_least=False) -> Verdict:
    ours, theirs = (rounds_of(rows, group, each) for each in transports)
    what = f"{_title(group)}: {unit} of {transports[0]}, relative to {transports[1]}"
    goal = f"{'at least' if is_least else 'at most'} {limit:g}"
    if not ours or not theirs:
        return Verdict(what, "—", goal, None)
    ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
    figure = statistics.median(ratios)
    shown = f"{figure:.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
    return Verdict(what, shown, goal, figure >= limit if is_least else figure <= limit)


def _title(group: str) -> str:
    if group == "many":
        return f"{suite.MANY} tensors of {suite.SMALL.name}"
    payload, _, concurrency = group.partition(" at ")
    return f"{payload}, {concurrency} threads" if concurrency else payload


def _slack(rows: list[Row], transport: str, copies: tuple[str, ...]) -> Verdict:
    """Judge the milliseconds beyond the engine in process and the copies."""
    group = suite.LAYER.name
    names = (transport, suite.LOCAL, *copies)
    columns = [rounds_of(rows, group, name) for name in names]
    what = f"{group}: p50 of {transport}, beyond {' + '.join(names[1:])}"
    if not all(columns):
        return Verdict(what, "—", "at most 2 ms", None)
    over = [ours - sum(rest) for ours, *rest in zip(*columns, strict=True)]
    figure = statistics.median(over)
    shown = f"{figure:.2f} ms ({min(over):.2f} to {max(over):.2f})"
    return Verdict(what, shown, "at most 2 ms", figure <= 2)


def _memory(rows: list[Row], end: str, payload: suite.Payload, limit: float) -> Verdict:
    peaks = next(
        (
            row["above_idle_bytes"]
            for row in rows
            if row["what"] == "memory" and (row["end"], row["payload"]) == (end, payload.name)
        ),
        [],
    )
    transport = suite.STREAM if payload is suite.LAYER else suite.UNARY
    what = f"{payload.name}, {transport}: peak memory of the {end} above idle"
    goal = f"{'less than' if payload is suite.LAYER else 'at most'} {limit / MIB:.0f} MiB"
    if not peaks:
        return Verdict(what, "—", goal, None)
    figure = statistics.median(peaks)
    shown = f"{figure / MIB:.0f} MiB ({min(peaks) / MIB:.0f}-{max(peaks) / MIB:.0f})"
    is_met = figure < limit if payload is suite.LAYER else figure <= limit
    if payload is not suite.LAYER:
        shown += f", {figure / payload.request_bytes:.2f} × the tensor"
    return Verdict(what, shown, goal, is_met)
