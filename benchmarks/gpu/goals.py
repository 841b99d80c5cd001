"""Goals of the engine on a GPU, and their verdicts on groups of measured rows.

A group is one operation in one element type and layout, as in the CPU benchmark.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from benchmarks import report
from benchmarks.engine import goals as engine_goals
from benchmarks.engine.suite import (
    BACKWARD_AVERAGE,
    BACKWARD_MAX,
    FORWARD_AVERAGE,
    FORWARD_INDICES,
    FORWARD_MAX,
)
from benchmarks.gpu import suite as gpu_suite
from benchmarks.wire import suite as wire_suite

Row = dict[str, Any]
LINK_SHARE = 0.8  # of the bandwidth between host and GPU, through shared memory
LINK, TORCH_PINNED = "host-GPU copies only", "PyTorch (page-locked copies)"


class Goals(NamedTuple):
    """Goals of one operation, for every large tensor.

    Attributes:
        copy: share of the bytes per second of a device copy.
        torch: times faster than PyTorch.
    """

    copy: float
    torch: float


GOALS = {
    FORWARD_MAX: Goals(0.9, 1.3),
    FORWARD_AVERAGE: Goals(0.9, 1.3),
    FORWARD_INDICES: Goals(0.85, 1.5),
    BACKWARD_MAX: Goals(0.85, 2),
    BACKWARD_AVERAGE: Goals(0.85, 2),
}


def against_copy(rows: list[Row], goals: Goals) -> str:
    """Judge the large tensor that is slowest relative to the copy."""
    return _worst_large(rows, "copy", goals.copy)


def against_torch(rows: list[Row], goals: Goals) -> str:
    """Judge the mean and the large tensor with the smallest speed-up."""
    rival = engine_goals.torch_of(rows[0]["layout"])
    rows = [row for row in rows if rival in row["times_faster"]]
    if not rows:
        return "—"
    return f"mean {engine_goals.mean(rows, rival):.2f}; {_worst_large(rows, rival, goals.torch)}"


def of_small(rows: list[Row]) -> str:
    """Judge the small layer with the smallest speed-up, and its number of kernels."""
    rows = [row for row in rows if row["input_bytes"] < gpu_suite.SMALL]
    rival = engine_goals.torch_of(rows[0]["layout"]) if rows else ""
    rows = [row for row in rows if rival in row["calls_faster"]]
    if not rows:
        return "—"
    row = min(rows, key=lambda row: row["calls_faster"][rival]["median"])
    shown = engine_goals.judged(row["calls_faster"][rival]["median"], 1, row["layer"])
    most = max(len(row["kernels"]) for row in rows)
    return f"{shown}; kernels per call: {most}, goal 1: {'met' if most == 1 else '**missed**'}"


def through_shared_memory(rows: list[Row]) -> str:
    """Judge the time of the copies to and from the GPU relative to a call."""
    layer = wire_suite.LAYER.name
    rounds = {row["transport"]: row["rounds"] for row in rows if row["payload"] == layer}
    if wire_suite.SHARED not in rounds or LINK not in rounds:
        return "not measured"
    pairs = zip(rounds[LINK], rounds[wire_suite.SHARED], strict=True)
    share = report.spread(link / ours for link, ours in pairs)
    return engine_goals.judged(share["median"], LINK_SHARE)


def _worst_large(rows: list[Row], rival: str, limit: float) -> str:
    large = [row for row in rows if row["input_bytes"] > gpu_suite.LARGE]
    return engine_goals.worst(large, rival, limit) if large else "—"
