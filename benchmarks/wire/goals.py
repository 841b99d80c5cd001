"""Goals of the service for calls over the wire, and their verdicts on the measured rows.

Reads the JSON files of `SOURCES`, writes wire-goals.md, and copies its table and its
sentence on small calls into benchmarks/README.md and README.md.

    python -m benchmarks.wire.goals
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import report
from benchmarks.wire import load_report, shared_memory, suite

Row = dict[str, Any]
Results = dict[str, list[Row]]
SOURCES = "wire", "load", "callers", "shared-memory"
SMALL_SIZES = "12.5 KB", "125 KB"
HEAD = ["goal", "measured", "limit", "verdict"]
SENTENCE = re.compile(r"A small call takes [\d.—]+ times as long as .*\.")
OVER_ECHO = "over unary calls to an echo server"
ROOT = Path(__file__).parents[2]


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


def verdicts(results: Results) -> list[Verdict]:
    """Return the verdict on every goal.

    Args:
        results: rows of each of `SOURCES`.
    """
    wire, load, callers, memory = (results[name] for name in SOURCES)
    flight, echo = suite.FLIGHT, suite.ECHO_STREAM
    return [
        *_h2load(load),
        _beside(load, "health checks beside 16 saturating callers", "p99", 20),
        *_callers(callers, "p50, one thread", f"one caller, p50 {OVER_ECHO}", 0.8, False),
        *_callers(callers, "calls/s, 16 threads", f"16 threads, calls/s {OVER_ECHO}", 1.2),
        *_callers(callers, "calls/s, 16 tasks", f"16 tasks, calls/s {OVER_ECHO}", 1.2),
        _many(callers),
        _beside(load, "12.5 KB calls beside two callers of 26 MB", "p50", 2),
        _beside(load, "12.5 KB calls beside two callers of 26 MB", "p99", 15),
        *_stub(load),
        _streamed(wire, "103 MB streamed, p50 over a stream to an echo server", echo),
        _streamed(wire, "103 MB streamed, p50 over Arrow Flight", flight),
        _shared_memory(memory),
    ]


def rounds_of(rows: list[Row], group: str, transport: str) -> list[float]:
    """Return the milliseconds or calls per second of each round; empty if not measured."""
    wanted = group, transport
    return next(
        (row["rounds"] for row in rows if (row.get("group"), row["transport"]) == wanted), []
    )


def _h2load(rows: list[Row]) -> list[Verdict]:
    found = []
    for size, limit in load_report.RATIO_GOALS.items():
        for load in ("16 on one connection", "16 connections"):
            row = _row(rows, what="throughput", size=size, load=load)
            what = f"{size}, h2load, {load}: calls/s over an echo server"
            if row is not None and "skipped" in row:
                found.append(Verdict(what, row["skipped"], f"at least {limit:g}", None))
            else:
                found.append(_spread(what, row and row["ratio"], limit, is_least=True))
    return found


def _beside(rows: list[Row], calls: str, percentile: str, limit: float) -> Verdict:
    row = _row(rows, what="beside", calls=calls)
    what = f"{calls}: {percentile}"
    return _spread(what, row and row.get(f"{percentile}_ms"), limit, unit=" ms")


def _callers(
    rows: list[Row], load: str, what: str, limit: float, is_least: bool = True
) -> list[Verdict]:
    found = []
    for size in SMALL_SIZES:
        row = _row(rows, payload=size, load=load, client="ours (shared stream)")
        found.append(_spread(f"{size}, {what}", row and row["relative"], limit, is_least=is_least))
    return found


def _many(rows: list[Row]) -> Verdict:
    row = _row(rows, payload="12.5 KB", load="calls/s, many tensors", client="ours (forward_many)")
    what = "12.5 KB, forward_many, calls/s over our unary calls"
    return _spread(what, row and row["relative"], 4, is_least=True)


def _stub(rows: list[Row]) -> list[Verdict]:
    found = []
    for size in SMALL_SIZES:
        row = _row(rows, what="one caller", size=size)
        what = f"{size}, a generated stub, p50 over a server with threads"
        found.append(_spread(what, row and row["ratio"], load_report.P50_GOAL))
    return found


def _streamed(rows: list[Row], what: str, other: str) -> Verdict:
    columns = [rounds_of(rows, suite.LAYER.name, name) for name in (suite.STREAM, other)]
    ratios = [ours / theirs for ours, theirs in zip(*columns, strict=True)] if all(columns) else []
    return _spread(what, report.spread(ratios) if ratios else None, 1)


def _shared_memory(rows: list[Row]) -> Verdict:
    row = _row(rows, transport=shared_memory.STREAM)
    what = "103 MB in shared memory, p50 beyond the engine in process"
    return _spread(what, row and row["over_engine_ms"], 0.5, unit=" ms")


def _spread(
    what: str, spread: Row | None, limit: float, *, unit: str = "", is_least: bool = False
) -> Verdict:
    """Judge the median of a spread."""
    goal = f"{'at least' if is_least else 'at most'} {limit:g}{unit}"
    if not spread:
        return Verdict(what, "—", goal, None)
    median = spread["median"]
    shown = "{median:.2f}{unit} ({min:.2f} to {max:.2f})".format(unit=unit, **spread)
    return Verdict(what, shown, goal, median >= limit if is_least else median <= limit)


def _row(rows: list[Row], **wanted: str) -> Row | None:
    return next((row for row in rows if wanted.items() <= row.items()), None)


def goals_table(results: Results) -> str:
    """Return one line per goal."""
    lines = [[each.what, each.figure, each.goal, str(each)] for each in verdicts(results)]
    return report.table(HEAD, lines, ":---")


def sentence(results: Results) -> str:
    """Return the duration of a small call in one sentence, for README.md."""
    medians = [
        row["relative"]["median"]
        for row in results["callers"]
        if (row["load"], row["client"]) == ("p50, one thread", "ours (shared stream)")
    ]
    shown = f"{statistics.mean(medians):.1f}" if medians else "—"
    return (
        f"A small call takes {shown} times as long as a unary gRPC call to an echo server on the "
        "same host."
    )


def read(folder: Path = report.RESULTS) -> Results:
    """Return the rows of the result files; none for a file that does not exist."""
    paths = {name: folder / f"{name}.json" for name in SOURCES}
    return {
        name: json.loads(path.read_text())["rows"] if path.exists() else []
        for name, path in paths.items()
    }


def markdown(results: Results) -> str:
    """Return the document with the goals."""
    return (
        "# Goals of calls over the wire\n\n"
        "Medians of rounds, with the smallest and the largest; ratios are taken within a round.\n"
        "Behind them: [wire.md](wire.md), [load.md](load.md), [callers.json](callers.json),\n"
        "[shared-memory.json](shared-memory.json).\n\n"
        f"{goals_table(results)}"
    )


def with_table(document: str, table: str) -> str:
    """Return a document with its table of goals of the wire replaced."""
    head, _, section = document.partition("## On the wire")
    lines = section.splitlines(keepends=True)
    start = next(i for i, line in enumerate(lines) if line.startswith("| goal |"))
    end = next(i for i in range(start, len(lines)) if not lines[i].startswith("|"))
    return head + "## On the wire" + "".join([*lines[:start], table, *lines[end:]])


def main() -> None:
    """Write the document, and copy the table and the sentence."""
    results = read()
    (report.RESULTS / "wire-goals.md").write_text(markdown(results))
    copies: Sequence[tuple[Path, Any]] = [
        (ROOT / "benchmarks/README.md", lambda text: with_table(text, goals_table(results))),
        (ROOT / "README.md", lambda text: SENTENCE.sub(sentence(results), text)),
    ]
    for path, change in copies:
        path.write_text(change(path.read_text()))
    print(goals_table(results))


if __name__ == "__main__":
    main()
