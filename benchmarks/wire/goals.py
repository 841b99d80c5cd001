"""What the wire is meant to reach, and whether measured rows do."""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

from benchmarks.wire import suite

Row = dict[str, Any]
MIB = 1 << 20


class Verdict(NamedTuple):
    """One goal, judged.

    Attributes:
        figure: None where it was not measured.
        is_met: None where it was not measured.
    """

    what: str
    figure: str
    goal: str
    is_met: bool | None

    def __str__(self) -> str:
        return {True: "met", False: "**missed**", None: "not measured"}[self.is_met]


def verdicts(rows: list[Row]) -> list[Verdict]:
    """Every goal; ratios are medians of those of the rounds."""
    seed, layer, load, many = suite.SEED.name, suite.LAYER.name, f"{suite.SEED.name} at 16", "many"
    return [
        _ratio(rows, seed, (suite.UNARY, suite.ECHO), "p50", 1.25),
        _ratio(rows, load, (suite.UNARY, suite.ECHO), "calls/s", 0.85, is_least=True),
        _ratio(rows, many, (suite.MANY_STREAM, suite.UNARY), "calls/s", 2.5, is_least=True),
        _ratio(rows, layer, (suite.STREAM, suite.ECHO_STREAM), "p50", 1.3),
        _ratio(rows, layer, (suite.STREAM, suite.FLIGHT), "p50", 1),
        _ratio(rows, layer, (suite.TEXTBOOK, suite.STREAM), "p50", 3, is_least=True),
        _slack(rows, suite.SHARED, ()),
        _slack(rows, suite.SHARED_COPIED, (suite.COPY_IN, suite.COPY_OUT)),
        _memory(rows, "server", suite.LAYER, 64 * MIB),
        _memory(rows, "server", suite.UNARY_60, 2.5 * suite.UNARY_60.request_bytes),
        _memory(rows, "client", suite.UNARY_60, 2.5 * suite.UNARY_60.request_bytes),
    ]


def rounds_of(rows: list[Row], group: str, way: str) -> list[float]:
    """The figures of the rounds: milliseconds, or calls per second; none where not measured."""
    return next(
        (row["rounds"] for row in rows if (row.get("group"), row["way"]) == (group, way)), []
    )


def _ratio(rows, group, ways, unit, limit, *, is_least=False) -> Verdict:
    ours, theirs = (rounds_of(rows, group, way) for way in ways)
    what = f"{group}: {unit} of {ways[0]}, over {ways[1]}"
    goal = f"{'at least' if is_least else 'at most'} {limit:g}"
    if not ours or not theirs:
        return Verdict(what, "—", goal, None)
    ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
    figure = statistics.median(ratios)
    shown = f"{figure:.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
    return Verdict(what, shown, goal, figure >= limit if is_least else figure <= limit)


def _slack(rows: list[Row], way: str, copies: tuple[str, ...]) -> Verdict:
    """Milliseconds over the local engine and the copies."""
    group = suite.LAYER.name
    names = (way, suite.LOCAL, *copies)
    columns = [rounds_of(rows, group, name) for name in names]
    what = f"{group}: p50 of {way}, over {' + '.join(names[1:])}"
    if not all(columns):
        return Verdict(what, "—", "at most 2 ms", None)
    over = [ours - sum(rest) for ours, *rest in zip(*columns, strict=True)]
    figure = statistics.median(over)
    shown = f"{figure:.2f} ms ({min(over):.2f}-{max(over):.2f})"
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
    way = "ours streamed" if payload is suite.LAYER else "ours unary"
    what = f"{payload.name}, {way}: memory of the {end} above idle"
    goal = f"{'less than' if payload is suite.LAYER else 'at most'} {limit / MIB:.0f} MiB"
    if not peaks:
        return Verdict(what, "—", goal, None)
    figure = statistics.median(peaks)
    shown = f"{figure / MIB:.0f} MiB ({min(peaks) / MIB:.0f}-{max(peaks) / MIB:.0f})"
    is_met = figure < limit if payload is suite.LAYER else figure <= limit
    if payload is not suite.LAYER:
        shown += f", {figure / payload.request_bytes:.2f} × the tensor"
    return Verdict(what, shown, goal, is_met)
