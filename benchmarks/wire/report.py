"""The measured rows as tables, for reading: the goals first.

python -m benchmarks.wire.report benchmarks/results/wire.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.engine.report import cell, table
from benchmarks.wire import goals as wire_goals
from benchmarks.wire import suite

Row = dict[str, Any]
NOTES = """\
Milliseconds and calls per second: the median of the rounds, the smallest and the largest in
brackets. A round of one call has many calls of small tensors and one of large ones; its figure is
their median, and p99 is that of the calls of all rounds. Ways take turns; ratios are taken round by
round. GB/s are the bytes of request and reply over p50.

- Servers are processes of their own, on the same machine and cores. All clients are threads of one
  process, which share its interpreter: calls per second are of one client process, not of a server
  alone.
- **Raw echoes** send bytes of the sizes of ours, through gRPC with our channel options, and pool
  nothing; the streamed one cuts slabs from a tensor as ours does.
- **Flight** is Arrow's DoExchange in batches of 4 MiB, as an echo with a stream of its own for
  every call.
- **Textbook** is a server and a client of the generated classes around the same engine: a `bytes`
  field, or `repeated float` up to 1 MB.
- **Ours streamed** is forced also where the client would send one message, and the other way round;
  a message holds 256 MiB at most.
- **Shared memory** goes over a Unix socket: of tensors made by `client.empty`, or of ordinary ones.
  The server may share 2 GiB, and tensors of 512 MiB, here; by default it is 1 GiB and 256 MiB.
  Tensors that are too small for it, which the client would send, are left out.
- Every way that pools gives, before it is timed, the bits of the local engine, or the run ends.
- **Memory** is the peak of a fresh process during one call above what it held after a small one;
  the caller's own tensors are there before.
"""


def markdown(path: Path) -> str:
    """The whole document, from the JSON file."""
    result = json.loads(path.read_text())
    rows, machine = result["rows"], result["machine"]
    names = ("grpcio", "protobuf", "numpy", "numba", "pyarrow")
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in names)
    quick = "**A quick run of few rounds, on a machine with other work: no figures to quote.**\n"
    return "\n".join(
        [
            "# The wire\n",
            f"{machine['cpu']}, {machine['cores']} cores, load average {result['load_before']} "
            f"before; Python {machine['python']}, {versions}; {result['date']}; "
            f"{result['rounds']} rounds; `{result['command']}`.\n",
            *([quick] if result["quick"] else []),
            f"![Throughput against payload]({path.stem}-throughput.png)\n",
            f"![Latency against concurrency]({path.stem}-latency.png)\n",
            NOTES,
            "## Goals\n",
            goals_table(rows),
            "## One call at a time: p50, ms\n",
            calls_table(rows, lambda row: cell(report.spread(row["rounds"]))),
            "## One call at a time: p99, ms\n",
            calls_table(rows, lambda row: f"{row['p99_ms']:.3g}"),
            "## One call at a time: GB/s\n",
            calls_table(rows, lambda row: f"{row['gb_per_s']:.3g}"),
            "## Calls per second, by threads that call at once\n",
            load_table(rows),
            f"## {suite.MANY} tensors of {suite.SMALL.name}\n",
            many_table(rows),
            "## Copies of 103 MB in, of its output out\n",
            copies_table(rows),
            "## Memory above idle\n",
            memory_table(rows),
        ]
    )


def goals_table(rows: list[Row]) -> str:
    judged = wire_goals.verdicts(rows)
    lines = [[each.what, each.figure, each.goal, str(each)] for each in judged]
    return table(["goal", "measured", "limit", "verdict"], lines, ":---")


def calls_table(rows: list[Row], shown: Any) -> str:
    """A line for each way, a column for each payload."""
    rows = [row for row in rows if row["what"] == "one call"]
    payloads = [each.name for each in suite.PAYLOADS if each.name in {r["group"] for r in rows}]
    of = {(row["way"], row["group"]): shown(row) for row in rows}
    lines = [
        [way, *(of.get((way, payload), "—") for payload in payloads)]
        for way in suite.WAYS
        if any(row["way"] == way for row in rows)
    ]
    return table(["way", *payloads], lines, "---:")


def load_table(rows: list[Row]) -> str:
    head = ["payload", "threads", "way", "calls/s", "p50, ms", "p99, ms"]
    lines = [
        [
            row["payload"],
            str(row["concurrency"]),
            row["way"],
            cell_of(row["rounds"]),
            f"{row['p50_ms']:.3g}",
            f"{row['p99_ms']:.3g}",
        ]
        for row in rows
        if row["what"] == "load"
    ]
    return table(head, lines, "---:")


def many_table(rows: list[Row]) -> str:
    lines = [[row["way"], cell_of(row["rounds"])] for row in rows if row["what"] == "many"]
    return table(["way", "calls/s"], lines, "---:")


def copies_table(rows: list[Row]) -> str:
    lines = [
        [row["way"], cell(report.spread(row["rounds"]))] for row in rows if row["what"] == "copy"
    ]
    return table(["copy", "ms"], lines, "---:")


def memory_table(rows: list[Row]) -> str:
    lines = [
        [
            row["way"],
            row["payload"],
            row["end"],
            cell_of([peak / 2**20 for peak in row["above_idle_bytes"]]),
        ]
        for row in rows
        if row["what"] == "memory"
    ]
    return table(["way", "payload", "end", "MiB above idle"], lines, "---:")


def cell_of(values: list[float]) -> str:
    """Whole numbers."""
    spread = report.spread(values)
    return "{median:.0f} ({min:.0f}-{max:.0f})".format(**spread)


if __name__ == "__main__":
    source = Path(sys.argv[1])
    source.with_suffix(".md").write_text(markdown(source))
