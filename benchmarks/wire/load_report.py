"""Markdown tables of the measurement under load, made from its JSON file.

python -m benchmarks.wire.load_report benchmarks/results/load.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.report import cell, table

Row = dict[str, Any]
RATIO_GOALS = {"12.5 KB": 1.8, "125 KB": 1.4}
P50_GOAL = 0.7
# Limits in ms, by the calls and the percentile.
BESIDE_GOALS = {
    ("12.5 KB calls beside two callers of 26 MB", "p50_ms"): 2,
    ("12.5 KB calls beside two callers of 26 MB", "p99_ms"): 15,
    ("health checks beside 16 saturating callers", "p99_ms"): 20,
}
NOTES = """\
Client and servers share the cores. Figures are medians of the rounds, with the smallest and the
largest in brackets; ratios are taken within a round.
The echo server has four threads, pools nothing, and replies with as many bytes.
h2load, a client in C, sends the calls of the first table.
"""


def markdown(path: Path) -> str:
    """Return the whole document."""
    result = json.loads(path.read_text())
    rows, machine = result["rows"], result["machine"]
    by = {what: [row for row in rows if row["what"] == what] for what in
          ("throughput", "one caller", "stream items", "beside", "stalls", "idle")}  # fmt: skip
    return "\n".join(
        [
            "# The server under load\n",
            f"- Machine: {machine['cpu']}, {machine['cores']} cores\n"
            f"- Versions: Python {machine['python']}, grpcio {machine['versions']['grpcio']}\n"
            f"- Run: {result['date']}, {result['rounds']} rounds, `{result['command']}`\n",
            NOTES,
            "## Calls per second, 16 in flight\n",
            throughput_table(by["throughput"]),
            "## One caller: p50, ms\n",
            caller_table(by["one caller"]),
            "## One stream of 12.5 KB items from a Python client: items per second\n",
            items_table(by["stream items"]),
            "## Beside other load: ms\n",
            beside_table(by["beside"]),
            "## Time of the polling thread for one event\n",
            "16 callers of 12.5 KB, two of 26 MB, a stream of 1 MiB chunks and health checks.\n"
            "The duration includes waiting for the interpreter lock and for a core.\n",
            stalls_table(by["stalls"]),
            "## Idle clients\n",
            "The latency is that of one other caller of 12.5 KB.\n",
            idle_table(by["idle"]),
        ]
    )


def throughput_table(rows: list[Row]) -> str:
    """Return the table of calls per second."""
    head = ["request", "load", "ours", "echo server", "ratio", "goal", "verdict"]
    lines = []
    for row in rows:
        if "skipped" in row:
            lines.append([row["size"], row["load"], row["skipped"], *"————"])
            continue
        goal = RATIO_GOALS[row["size"]]
        is_met = row["ratio"]["median"] >= goal
        rates = [f"{row[name]['median']:.0f} ({row[name]['min']:.0f}-{row[name]['max']:.0f})"
                 for name in ("ours", "echo")]  # fmt: skip
        ratio = cell(row["ratio"])
        lines.append([row["size"], row["load"], *rates, ratio, f"at least {goal}", verdict(is_met)])
    return table(head, lines, "---:")


def caller_table(rows: list[Row]) -> str:
    """Return the table of one unary caller."""
    head = ["request", "polling thread", "threads", "ratio", "goal", "verdict"]
    lines = []
    for row in rows:
        cells = [cell(row[name]) for name in ("inline", "threads", "ratio")]
        judged = verdict(row["ratio"]["median"] <= P50_GOAL)
        lines.append([row["size"], *cells, f"at most {P50_GOAL}", judged])
    return table(head, lines, "---:")


def items_table(rows: list[Row]) -> str:
    """Return the table of stream items."""
    lines = [
        [*(f"{row[name]['median']:.0f}" for name in ("inline", "threads")), cell(row["ratio"])]
        for row in rows
    ]
    return table(["polling thread", "threads", "ratio"], lines, "---:")


def beside_table(rows: list[Row]) -> str:
    """Return the table of calls beside other load."""
    head = ["calls", "percentile", "ms", "goal", "verdict"]
    lines = []
    for row in rows:
        for name in ("p50_ms", "p99_ms", "p100_ms"):
            goal = BESIDE_GOALS.get((row["calls"], name))
            judged = ["—", "—"] if goal is None else [
                f"at most {goal}", verdict(row[name]["median"] <= goal)
            ]  # fmt: skip
            shown = "slowest" if name == "p100_ms" else name.removesuffix("_ms")
            lines.append([row["calls"], shown, cell(row[name]), *judged])
    return table(head, lines, "---:")


def stalls_table(rows: list[Row]) -> str:
    """Return the table of the polling thread."""
    names = ("p50_ms", "p99_ms", "p99.9_ms", "p100_ms")
    head = ["time", "events", "p50, ms", "p99, ms", "p99.9, ms", "longest, ms"]
    lines = [
        [row["of"], str(row["events"]), *(f"{row[name]:.3g}" for name in names)] for row in rows
    ]
    return table(head, lines, "---:")


def idle_table(rows: list[Row]) -> str:
    """Return the table of idle connections and streams."""
    head = ["idle clients", "memory, MiB", "KiB each", "threads", "descriptors", "p50, ms"]
    lines = []
    for row in rows:
        before, after = row["before"], row["with"]
        each = (after["resident_mib"] - before["resident_mib"]) * 1024 / row["count"]
        pairs = [f"{before[name]:.0f} → {after[name]:.0f}" for name in
                 ("resident_mib", "threads", "descriptors")]  # fmt: skip
        pairs.append(f"{before['p50_ms']:.2f} → {after['p50_ms']:.2f}")
        lines.append([f"{row['count']} {row['of']}", pairs[0], f"{each:.1f}", *pairs[1:]])
    return table(head, lines, "---:")


def verdict(is_met: bool) -> str:
    """Return the verdict on a goal."""
    return "met" if is_met else "**missed**"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.with_suffix(".md").write_text(markdown(path))
