"""Goals of the engine, and their verdicts on measured rows; float32, channels first, unless noted.

Ratios are taken within a round: every row holds the samples of all that it is compared with.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from benchmarks.engine import model_layers
from benchmarks.engine.suite import (
    BACKWARD_AVERAGE,
    BACKWARD_MAX,
    BYTES,
    FORWARD_AVERAGE,
    FORWARD_INDICES,
    FORWARD_MAX,
    LAYERS,
    MODEL_POOLS,
    Layer,
)

Row = dict[str, Any]
MEGABYTE, SMALL = 1_000_000, 100_000  # bytes of input
ONNXRUNTIME, TORCH = "onnxruntime", "torch"
FORWARD, BACKWARD = (FORWARD_MAX, FORWARD_AVERAGE), (BACKWARD_MAX, BACKWARD_AVERAGE)


class Goal(NamedTuple):
    """Goal for some rows.

    Attributes:
        subject: the rows and their figure, in words.
        has: whether a row is one of them.
        figure: the figure of these rows, and where it was measured.
        limit: the smallest figure that meets the goal, or the largest.
        is_most: whether it is the largest.
    """

    subject: str
    has: Callable[[Row], bool]
    figure: Callable[[list[Row]], tuple[float, str]]
    limit: float
    is_most: bool = False


class Verdict(NamedTuple):
    """Figure of a goal, and the verdict; both say so if no row was measured."""

    subject: str
    figure: str
    limit: str
    outcome: str


def judge(goal: Goal, rows: list[Row]) -> Verdict:
    """Return the verdict on a goal."""
    limit = f"at {'most' if goal.is_most else 'least'} {goal.limit:g}"
    chosen = [row for row in rows if goal.has(row)]
    if not chosen:
        return Verdict(goal.subject, "—", limit, "not measured")
    figure, place = goal.figure(chosen)
    is_met = figure <= goal.limit if goal.is_most else figure >= goal.limit
    shown = f"{figure:.2f}" + (f" ({place})" if place else "")
    return Verdict(goal.subject, shown, limit, "met" if is_met else "**missed**")


def slowest(rival: str) -> Callable[[list[Row]], tuple[float, str]]:
    """Return the figure of the row that is least times faster than a rival."""

    def figure(rows: list[Row]) -> tuple[float, str]:
        row = min(rows, key=lambda row: row["times_faster"][rival]["median"])
        return row["times_faster"][rival]["median"], _place(row)

    return figure


def median(rows: list[Row]) -> tuple[float, str]:
    """Return the median of times faster than ONNX Runtime."""
    figures = [row["times_faster"][ONNXRUNTIME]["median"] for row in rows]
    return statistics.median(figures), f"{len(rows)} layers"


def geometric_mean(rows: list[Row]) -> tuple[float, str]:
    """Return the geometric mean of times faster than ONNX Runtime."""
    return mean(rows, ONNXRUNTIME), f"{len(rows)} layers and operations"


def costliest(rows: list[Row]) -> tuple[float, str]:
    """Return the largest time over that of the related layer."""
    row = max(rows, key=lambda row: row["over_related"]["median"])
    return row["over_related"]["median"], _place(row)


def least_speed(rows: list[Row]) -> tuple[float, str]:
    """Return the smallest speed over that of the related layer."""
    time, place = costliest(rows)
    return 1 / time, place


def _place(row: Row) -> str:
    is_model = row["operation"] == MODEL_POOLS
    return row["layer"] if is_model else f"{row['layer']}, {row['operation']}"


def _of(
    layers: Iterable[Layer], operations: Iterable[str], key: str, dtype: str = "float32"
) -> Callable[[Row], bool]:
    """Return a test of a row: it is one of some layers and operations, and has a comparison."""
    names, wanted = {layer.name for layer in layers}, tuple(operations)

    def has(row: Row) -> bool:
        is_alike = (row["dtype"], row["layout"]) == (dtype, "NCHW") and row["layer"] in names
        is_compared = key in row or key in row["times_faster"]
        return is_alike and row["operation"] in wanted and is_compared

    return has


def _sized(
    has: Callable[[Row], bool], least: float = 0, most: float = float("inf")
) -> Callable[[Row], bool]:
    return lambda row: has(row) and least <= row["input_bytes"] < most


_ALL = (*LAYERS, *model_layers.MODEL_LAYERS)
_K13 = [layer for layer in model_layers.SPP if layer.kernel == 13]
_K31 = [layer for layer in model_layers.LARGE_WINDOWS if layer.related()]
_GLOBAL = _of(model_layers.GLOBAL_AVERAGES, [FORWARD_AVERAGE], ONNXRUNTIME)
_SMALL_PLANES = model_layers.SMALL_PLANES


def _data(kind: str) -> Callable[[Row], bool]:
    layers = [layer for layer in model_layers.DATA_LAYERS if layer.data == kind]
    return _of(layers, [FORWARD_MAX, FORWARD_INDICES], "over_related")


GOALS = (
    Goal("max after hardswish: time over the same call on normal data",
         _data("hardswish"), costliest, 1.2, is_most=True),
    Goal("max with 1 % NaN: time over the same call on normal data",
         _data("1 % NaN"), costliest, 1.5, is_most=True),
    Goal("13x13 windows, max: times faster than ONNX Runtime",
         _of(_K13, [FORWARD_MAX], ONNXRUNTIME), slowest(ONNXRUNTIME), 4),
    Goal("13x13 windows, average: times faster than ONNX Runtime",
         _of(_K13, [FORWARD_AVERAGE], ONNXRUNTIME), slowest(ONNXRUNTIME), 3),
    Goal("13x13 windows, max with indices: times faster than PyTorch",
         _of(_K13, [FORWARD_INDICES], TORCH), slowest(TORCH), 10),
    Goal("31x31 windows: time over the time of 9x9 windows",
         _of(_K31, [FORWARD_MAX, FORWARD_AVERAGE, FORWARD_INDICES], "over_related"),
         costliest, 1.3, is_most=True),
    Goal("global averages of models over 100 KB: times faster than ONNX Runtime",
         _sized(_GLOBAL, least=SMALL), slowest(ONNXRUNTIME), 1.2),
    Goal("global averages of models below 100 KB: times faster than ONNX Runtime",
         _sized(_GLOBAL, most=SMALL), slowest(ONNXRUNTIME), 0.8),
    Goal("global averages of models, bytes: times faster than ONNX Runtime",
         _of(model_layers.BYTE_LAYERS, [FORWARD_AVERAGE], ONNXRUNTIME, BYTES),
         slowest(ONNXRUNTIME), 1),
    Goal("average without counted padding: speed over the speed with it",
         _of(model_layers.PADS_NOT_COUNTED, [FORWARD_AVERAGE], "over_related"), least_speed, 0.95),
    Goal("batch of 1, planes up to 400 elements, max: times faster than ONNX Runtime, median",
         _of(_SMALL_PLANES, [FORWARD_MAX], ONNXRUNTIME), median, 1),
    Goal("batch of 1, planes up to 400 elements, average: times faster than ONNX Runtime, median",
         _of(_SMALL_PLANES, [FORWARD_AVERAGE], ONNXRUNTIME), median, 0.9),
    *(
        Goal(f"{model.name}, all pools: times faster than ONNX Runtime",
             lambda row, name=model.name: (row["layer"], row["operation"]) == (name, MODEL_POOLS),
             slowest(ONNXRUNTIME), 1)
        for model in model_layers.MODELS
    ),
    Goal("forward, layers of networks: times faster than ONNX Runtime, geometric mean",
         _of(LAYERS, FORWARD, ONNXRUNTIME), geometric_mean, 1.7),
    Goal("forward, all layers over 1 MB: times faster than ONNX Runtime",
         _sized(_of(_ALL, FORWARD, ONNXRUNTIME), least=MEGABYTE), slowest(ONNXRUNTIME), 1),
    Goal("backward, all layers over 1 MB: times faster than PyTorch",
         _sized(_of(_ALL, BACKWARD, TORCH), least=MEGABYTE), slowest(TORCH), 1),
)  # fmt: skip


def torch_of(layout: str) -> str:
    """Return the PyTorch contender for rows of a layout."""
    return "torch_channels_last" if layout == "NHWC" else "torch"


def mean(rows: list[Row], rival: str) -> float:
    """Return the geometric mean of the speed-ups over all layers that the rival supports."""
    return statistics.geometric_mean(
        row["times_faster"][rival]["median"] for row in rows if rival in row["times_faster"]
    )


def worst(rows: list[Row], rival: str, limit: float) -> str:
    """Return the smallest speed-up and its layer, judged if there is a limit."""
    row = min(rows, key=lambda row: row["times_faster"][rival]["median"])
    figure = row["times_faster"][rival]["median"]
    return f"worst {judged(figure, limit, row['layer'])}"


def judged(figure: float, limit: float, layer: str = "") -> str:
    """Return a figure with its layer and, if there is a limit, the verdict."""
    where = f" ({layer})" if layer else ""
    outcome = "met" if figure >= limit else "**missed**"
    return f"{figure:.2f}{where}" + (f", goal {limit:g}: {outcome}" if limit else "")
