"""The measured rows as a picture: bytes per second against bytes moved, below the copy's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine_plot import APART, GREY, MARKS, PANELS, pyplot

Row = dict[str, Any]
CONTENDERS = ("torch", "torch_channels_last", "ours")
COPY = "a copy on the card of as many bytes"


def draw(rows: list[Row], path: Path) -> None:
    """Draws both directions of the maximum, of the first element type and layout measured.

    Where neither was measured, the first operation that was.
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
        axis.set_title(f"{operation}, {first['dtype']} {first['layout']}", fontsize=11)
    low, high = axes[0][0].get_ylim()
    axes[0][0].set_ylim(low / (high / low) ** 0.5, high)  # room for names
    axes[0][0].set_ylabel("GB/s: bytes that must move, over the time", fontsize=10)
    figure.supxlabel("MB that must move, each byte once", fontsize=10)
    handles = axes[0][0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=4, frameon=False, fontsize=10)
    figure.savefig(path, dpi=200)
    pyplot.close(figure)


def draw_panel(axis: Any, rows: list[Row]) -> None:
    """The copy as a line, each contender as marks, the names of some layers below."""
    rows = sorted(rows, key=moved)
    for name in CONTENDERS:
        able = [row for row in rows if name in row["times_ms"]]
        label, marker, colour = MARKS[name]
        if able:
            speeds = [speed(row, name) for row in able]
            style = {"color": colour, "marker": marker, "label": label}
            axis.scatter(list(map(moved, able)), speeds, 32, **style, linewidths=0, zorder=3)
    copies = [speed(row, "copy") for row in rows]
    axis.plot(list(map(moved, rows)), copies, ".-", color=GREY, markersize=3, label=COPY)
    axis.loglog()
    axis.xaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.grid(color="#e8e8e8", linewidth=0.7)
    axis.spines[["top", "right"]].set_visible(False)
    name_layers(axis, rows)


def name_layers(axis: Any, rows: list[Row]) -> None:
    """Names, along the bottom, of layers that are far enough from one another."""
    last = 0.0
    for row in rows:
        if moved(row) < last * 10**APART:
            continue
        last = moved(row)
        axis.annotate(
            row["layer"].partition(" k")[0],
            (last, 0.015),
            xycoords=axis.get_xaxis_transform(),
            rotation=90, ha="center", va="bottom", fontsize=7, color=GREY, in_layout=False,
        )  # fmt: skip


def moved(row: Row) -> float:
    return row["moved_bytes"] / 1e6


def speed(row: Row, name: str) -> float:
    return row["moved_bytes"] / row["times_ms"][name]["median"] / 1e6
