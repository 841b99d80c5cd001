"""Summary of the engine results for the front page: one line per operation."""

from __future__ import annotations

from typing import Any

from benchmarks.engine import goals as engine_goals
from benchmarks.engine.suite import OPERATIONS
from benchmarks.report import table

Row = dict[str, Any]


def summary_table(result: dict[str, Any]) -> str:
    """Return the mean and the worst speed-up of each operation; float32, channels first."""
    head = ["operation", "over PyTorch", "slowest layer", "over ONNX Runtime", "slowest layer"]
    lines = []
    for operation in OPERATIONS:
        rows = [
            row
            for row in result["rows"]
            if (row["dtype"], row["layout"], row["operation"]) == ("float32", "NCHW", operation)
        ]
        lines.append(
            [operation, *_mean_and_worst(rows, "torch"), *_mean_and_worst(rows, "onnxruntime")]
        )
    return table(head, lines, "---:")


def _mean_and_worst(rows: list[Row], rival: str) -> tuple[str, str]:
    able = [row for row in rows if rival in row["times_faster"]]
    if not able:
        return "—", "—"
    worst = min(row["times_faster"][rival]["median"] for row in able)
    return f"{engine_goals.mean(able, rival):.1f}", f"{worst:.1f}"
