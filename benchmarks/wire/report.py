"""Markdown tables and pictures of the wire benchmark, made from its JSON file.

python -m benchmarks.wire.report benchmarks/results/wire.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.report import cell, table
from benchmarks.wire import suite

Row = dict[str, Any]
NOTES = """\
Figures are milliseconds or calls per second: the median of the rounds, with the smallest and the
largest in brackets.
A round has many calls for small tensors and one call for large ones.
The figure of a round is the median of its calls; p99 covers the calls of all rounds.
Transports take turns within a round, and ratios are taken within a round.
GB/s is the number of bytes in request and reply, divided by p50.

- Servers are separate processes on the same machine and cores.
  All clients are threads of one process and share its interpreter, so calls per second describe
  one client process, not a server alone.
- **Echo server** pools nothing.
  It sends messages of the same sizes as ours through gRPC with our channel options.
  The streamed one cuts the tensor into the same chunks as ours.
- **Arrow Flight** is an echo over DoExchange in batches of 4 MiB, with one stream per call.
- **Naive gRPC service** uses the generated classes around the same engine, with a `bytes` field.
  A second variant uses `repeated float`, up to 1 MB.
- **Ours (unary)** and **ours (stream)** are forced to that transport at every size.
  A message holds at most 256 MiB.
  **Ours (shared stream)** is the client's choice for small tensors.
- **Ours (shared memory)** uses a Unix socket and tensors from `client.empty`, or ordinary arrays,
  which are copied.
  The server may share 2 GiB and tensors of 512 MiB here; the defaults are 1 GiB and 256 MiB.
  Tensors too small for shared memory are left out, because the client would send them.
- Before the measurement, every transport that pools must return the result of the engine in
  process, bit-identical; otherwise the run ends.
- **Peak memory** is that of a fresh process during one call, above its memory after a small call.
  The caller's tensors exist before the call and do not count.
"""


def write(path: Path) -> None:
    """Write the tables and the two pictures beside a result file."""
    from benchmarks.wire import plot  # needs Matplotlib

    rows = json.loads(path.read_text())["rows"]
    path.with_suffix(".md").write_text(markdown(path))
    plot.draw_throughput(rows, path.with_name(f"{path.stem}-throughput.png"))
    plot.draw_latency(rows, path.with_name(f"{path.stem}-latency.png"))


def markdown(path: Path) -> str:
    """Return the whole document."""
    result = json.loads(path.read_text())
    rows, machine = result["rows"], result["machine"]
    names = ("grpcio", "protobuf", "numpy", "numba", "pyarrow")
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in names)
    quick = "**A quick run of few rounds: do not quote these figures.**\n"
    return "\n".join(
        [
            "# The service over gRPC\n",
            f"- Machine: {machine['cpu']}, {machine['cores']} cores, load average "
            f"{result['load_before']} before the run\n"
            f"- Versions: Python {machine['python']}, {versions}\n"
            f"- Run: {result['date']}, {result['rounds']} rounds, `{result['command']}`\n",
            *([quick] if result["quick"] else []),
            f"![Throughput against payload]({path.stem}-throughput.png)\n",
            f"![Latency against concurrency]({path.stem}-latency.png)\n",
            NOTES,
            "## One call at a time: p50, ms\n",
            calls_table(rows, lambda row: cell(report.spread(row["rounds"]))),
            "## One call at a time: p99, ms\n",
            calls_table(rows, lambda row: f"{row['p99_ms']:.3g}"),
            "## One call at a time: GB/s\n",
            calls_table(rows, lambda row: f"{row['gb_per_s']:.3g}"),
            "## Calls per second with concurrent threads\n",
            load_table(rows),
            f"## Plain copies of the {suite.LAYER.name} input and of its output\n",
            copies_table(rows),
            "## Peak memory above idle\n",
            memory_table(rows),
        ]
    )


def calls_table(rows: list[Row], shown: Any) -> str:
    """Return one line per transport and one column per payload."""
    rows = [row for row in rows if row["what"] == "one call"]
    payloads = [each.name for each in suite.PAYLOADS if each.name in {r["group"] for r in rows}]
    cells = {(row["transport"], row["group"]): shown(row) for row in rows}
    lines = [
        [transport, *(cells.get((transport, payload), "—") for payload in payloads)]
        for transport in suite.TRANSPORTS
        if any(row["transport"] == transport for row in rows)
    ]
    return table(["transport", *payloads], lines, "---:")


def load_table(rows: list[Row]) -> str:
    head = ["payload", "threads", "transport", "calls/s", "p50, ms", "p99, ms"]
    lines = [
        [
            row["payload"],
            str(row["concurrency"]),
            row["transport"],
            whole_cell(row["rounds"]),
            f"{row['p50_ms']:.3g}",
            f"{row['p99_ms']:.3g}",
        ]
        for row in rows
        if row["what"] == "load"
    ]
    return table(head, lines, "---:")


def copies_table(rows: list[Row]) -> str:
    lines = [
        [row["transport"], cell(report.spread(row["rounds"]))]
        for row in rows
        if row["what"] == "copy"
    ]
    return table(["copy", "ms"], lines, "---:")


def memory_table(rows: list[Row]) -> str:
    lines = [
        [
            row["transport"],
            row["payload"],
            row["end"],
            whole_cell([peak / 2**20 for peak in row["above_idle_bytes"]]),
        ]
        for row in rows
        if row["what"] == "memory"
    ]
    return table(["transport", "payload", "process", "MiB above idle"], lines, "---:")


def whole_cell(values: list[float]) -> str:
    """Return "median (min-max)" as whole numbers."""
    spread = report.spread(values)
    return "{median:.0f} ({min:.0f}-{max:.0f})".format(**spread)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
