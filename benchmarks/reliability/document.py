"""Table of docs/reliability.md, from reliability.json and the results of long runs."""

from __future__ import annotations

import json
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs/reliability.md"
LONG_RUNS = ("fuzzing.json", "soak.json")  # `make fuzz-calls` and `make soak` write them
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"


def table(path: Path) -> str:
    """Return the table of a result file, and of those of long runs beside it."""
    result = json.loads(path.read_text())
    rows = list(result["rows"])
    for name in LONG_RUNS:
        if (path.parent / name).exists():
            rows += json.loads((path.parent / name).read_text())["rows"]
    lines = ["| fault | required | measured | verdict |", "| --- | --- | --- | --- |"]
    for row in rows:
        verdict = "met" if row["met"] else "**missed**"
        lines.append(f"| {row['fault']} | {row['required']} | {row['measured']} | {verdict} |")
    machine, loads = result["machine"], [row["other_load"] for row in result["rows"]]
    versions = machine["versions"]
    lines += [
        "",
        f"Measured on {result['date']}: {machine['cpu']}, {machine['cores']} cores, "
        f"Python {machine['python']},",
        f"grpcio {versions['grpcio']}, NumPy {versions['numpy']}. Other programs used the machine: "
        f"the load average before",
        f"an experiment was {min(loads):g} to {max(loads):g}.",
    ]
    return "\n".join(lines) + "\n"


def write(path: Path) -> None:
    """Replace the table of the document."""
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(before + BEGIN + table(path) + END + after)
