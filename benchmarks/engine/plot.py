"""Picture of the engine benchmark: time against bytes moved, above the memory-bandwidth floor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from benchmarks.engine.model_layers import MODEL_LAYERS
from benchmarks.engine.suite import BACKWARD_MAX, FORWARD_MAX, LAYERS

mpl.use("agg")
from matplotlib import pyplot

Row = dict[str, Any]
# Okabe and Ito's palette is safe for colour-blind readers; the markers differ as well.
MARKS = {
    "torch": ("PyTorch", "^", "#D55E00"),
    "torch_channels_last": ("PyTorch (channels last)", "v", "#CC79A7"),
    "onnxruntime": ("ONNX Runtime", "s", "#E69F00"),
    "ours": ("this engine", "o", "#0072B2"),
}
PANELS = (FORWARD_MAX, BACKWARD_MAX)
FLOOR, GREY = "memory-bandwidth floor", "#555555"
APART = 0.13  # least distance between named layers, in decades of bytes
MEBIBYTE = 2**20


def draw(rows: list[Row], path: Path) -> None:
    """Draw times against bytes moved."""
    labels = "milliseconds", "MiB moved (input and output)"
    draw_both(rows, path, draw_panel, labels, room=0.3)


def draw_both(
    rows: list[Row],
    path: Path,
    draw_panel: Callable[[Any, list[Row]], None],
    labels: tuple[str, str],
    room: float,
) -> None:
    """Draw max pooling in both directions, for the first measured element type and layout.

    If neither direction was measured, draw the first measured operation.

    Args:
        draw_panel: draws the rows of one operation.
        labels: of the vertical and of the horizontal axis.
        room: space for names at the bottom, as a share of the panel.
    """
    first = rows[0]
    alike = [row for row in rows if all(row[key] == first[key] for key in ("dtype", "layout"))]
    measured = [each for each in PANELS if any(row["operation"] == each for row in alike)]
    panels = measured or [first["operation"]]
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(9, 5.4), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, operation in zip(axes[0], panels, strict=True):
        draw_panel(axis, [row for row in alike if row["operation"] == operation])
        tidy(axis)
        axis.set_title(f"{operation}, {first['dtype']} {first['layout']}", fontsize=11)
    axes[0][0].set_ylabel(labels[0], fontsize=10)
    low, high = axes[0][0].get_ylim()
    axes[0][0].set_ylim(low / (high / low) ** room, high)
    figure.supxlabel(labels[1], fontsize=10)
    handles = axes[0][0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=3, frameon=False, fontsize=10)
    figure.savefig(path, dpi=200)
    pyplot.close(figure)


def draw_panel(axis: Any, rows: list[Row]) -> None:
    """Draw the floor, the times of each contender, and the names of some layers."""
    for name, (label, marker, colour) in MARKS.items():
        times = [
            (moved(row), row["times_ms"][name]["median"]) for row in rows if name in row["times_ms"]
        ]
        if times:
            x, y = zip(*times, strict=True)
            style = {"color": colour, "marker": marker, "label": label}
            axis.scatter(x, y, 32, **style, linewidths=0, zorder=3)
    floors = floor_of(rows)
    axis.plot(floors.keys(), floors.values(), ".-", color=GREY, markersize=3, label=FLOOR)
    axis.loglog()
    name_layers(axis, rows, floors)


def tidy(axis: Any) -> None:
    axis.xaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.grid(color="#e8e8e8", linewidth=0.7)
    axis.spines[["top", "right"]].set_visible(False)


def moved(row: Row) -> float:
    return (row["input_bytes"] + row["output_bytes"]) / MEBIBYTE


def floor_of(rows: list[Row]) -> dict[float, float]:
    """Return the least milliseconds measured to read or write each number of MiB."""
    floors: dict[float, float] = {}
    for row in sorted(rows, key=lambda row: row["input_bytes"]):
        size, time = row["input_bytes"] / MEBIBYTE, row["times_ms"]["floor"]["median"]
        floors[size] = min(time, floors.get(size, np.inf))
    return floors


def name_layers(axis: Any, rows: list[Row], floors: dict[float, float]) -> None:
    """Write the names of layers below the floor, skipping those too close together."""
    layers = {layer.name: layer for layer in (*LAYERS, *MODEL_LAYERS)}
    last = 0.0
    for row in sorted(rows, key=moved):
        x = moved(row)
        if x < last * 10**APART:
            continue
        last, layer = x, layers[row["layer"]]
        floor = np.exp(np.interp(np.log(x), *np.log([list(floors), list(floors.values())])))
        axis.annotate(
            f"{layer.network} {'x'.join(map(str, layer.shape[2:]))}",
            (x, min(floor, *(spread["median"] for spread in row["times_ms"].values()))),
            (0, -7),
            textcoords="offset points",
            rotation=90, ha="center", va="top", fontsize=8, color=GREY, in_layout=False,
        )  # fmt: skip
