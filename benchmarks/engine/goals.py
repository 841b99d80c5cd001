"""Goals of the engine, and their verdicts on groups of measured rows.

A group is one operation in one element type and layout. Channels-last rows are compared with
PyTorch's channels-last format.
"""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

from benchmarks.engine.suite import (
    BACKWARD_AVERAGE,
    BACKWARD_MAX,
    FORWARD_AVERAGE,
    FORWARD_INDICES,
    FORWARD_MAX,
    SMALLEST,
)

Row = dict[str, Any]
LARGE = 8 << 20  # bytes of input: more than fits in most caches


class Goals(NamedTuple):
    """Goals of one operation; 0 means none.

    Attributes:
        onnxruntime: times faster than ONNX Runtime, every layer.
        onnxruntime_mean: the same, as a geometric mean.
        torch: times faster than PyTorch, every layer.
        torch_mean: the same, as a geometric mean.
        torch_large: times faster than PyTorch, every large tensor.
        floor: most times the memory-bandwidth floor, every large tensor.
        is_contiguous: the PyTorch goals apply to its contiguous format only.
    """

    onnxruntime: float
    onnxruntime_mean: float
    torch: float
    torch_mean: float
    torch_large: float
    floor: float
    is_contiguous: bool = False


_FORWARD = Goals(1.2, 1.5, 8, 10, 0, 1.6, is_contiguous=True)
_BACKWARD = Goals(0, 0, 1, 0, 2, 1.6)
GOALS = {
    FORWARD_MAX: _FORWARD,
    FORWARD_AVERAGE: _FORWARD,
    FORWARD_INDICES: Goals(1.5, 0, 4, 0, 0, 2.5),
    BACKWARD_MAX: _BACKWARD,
    BACKWARD_AVERAGE: _BACKWARD,
}


def torch_of(layout: str) -> str:
    """Return the PyTorch contender for rows of a layout."""
    return "torch_channels_last" if layout == "NHWC" else "torch"


def mean(rows: list[Row], rival: str, ours: str = "ours") -> float:
    """Return the geometric mean of the speed-ups over all layers that the rival supports."""
    return statistics.geometric_mean(
        row["times_faster"][rival]["median"]
        if ours == "ours"
        else row["times_ms"][rival]["median"] / row["times_ms"][ours]["median"]
        for row in rows
        if rival in row["times_faster"]
    )


def against_onnxruntime(rows: list[Row], goals: Goals) -> str:
    return faster(rows, "onnxruntime", (goals.onnxruntime, goals.onnxruntime_mean, 0))


def against_torch(rows: list[Row], goals: Goals) -> str:
    layout = rows[0]["layout"]
    has_goal = layout == "NCHW" or not goals.is_contiguous
    limits = (goals.torch, goals.torch_mean, goals.torch_large) if has_goal else (0, 0, 0)
    return faster(rows, torch_of(layout), limits)


def against_floor(rows: list[Row], goals: Goals) -> str:
    """Judge the large tensor that is slowest relative to the memory-bandwidth floor."""
    large = [row for row in rows if row["input_bytes"] > LARGE]
    if not large:
        return "—"
    row = max(large, key=lambda row: row["over_floor"]["median"])
    figure = row["over_floor"]["median"]
    outcome = "met" if figure <= goals.floor else "**missed**"
    return f"worst {figure:.2f} ({row['layer']}), goal {goals.floor:g}: {outcome}"


def smallest(rows: list[Row]) -> str:
    """Judge the smallest layer against all rivals."""
    row = next((row for row in rows if row["layer"] == SMALLEST.name), None)
    if row is None:
        return "—"
    names = {torch_of(row["layout"]): "PyTorch", "onnxruntime": "ONNX Runtime"}
    figures = {
        title: row["times_faster"][rival]["median"]
        for rival, title in names.items()
        if rival in row["times_faster"]
    }
    shown = ", ".join(f"{figure:.2f} {title}" for title, figure in figures.items())
    return f"{shown}: {verdict(min(figures.values()), 1)}"


def faster(rows: list[Row], rival: str, limits: tuple[float, float, float]) -> str:
    rows = [row for row in rows if rival in row["times_faster"]]
    if not rows:
        return "—"
    each, of_mean, of_large = limits
    parts = [f"mean {judged(mean(rows, rival), of_mean)}", worst(rows, rival, each)]
    large = [row for row in rows if row["input_bytes"] > LARGE]
    if of_large and large:
        parts.append(f"large tensors: {worst(large, rival, of_large)}")
    return "; ".join(parts)


def worst(rows: list[Row], rival: str, limit: float) -> str:
    row = min(rows, key=lambda row: row["times_faster"][rival]["median"])
    figure = row["times_faster"][rival]["median"]
    return f"worst {judged(figure, limit, row['layer'])}"


def judged(figure: float, limit: float, layer: str = "") -> str:
    where = f" ({layer})" if layer else ""
    goal = f", goal {limit:g}: {verdict(figure, limit)}" if limit else ""
    return f"{figure:.2f}{where}{goal}"


def verdict(figure: float, limit: float) -> str:
    return "met" if figure >= limit else "**missed**"
