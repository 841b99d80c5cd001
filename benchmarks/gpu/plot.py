"""Picture of the GPU benchmark: bytes per second against bytes moved, and a device copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.engine.plot import APART, GREY, MARKS, draw_both

Row = dict[str, Any]
CONTENDERS = ("torch", "torch_channels_last", "ours")
COPY = "device copy of as many bytes"


def draw(rows: list[Row], path: Path) -> None:
    """Draw bytes per second against bytes moved."""
    labels = "GB/s: bytes that must move per time", "MB that must move, each byte once"
    draw_both(rows, path, draw_panel, labels, room=0.5)


def draw_panel(axis: Any, rows: list[Row]) -> None:
    """Draw the copy as a line, contenders as markers, and the names of some layers."""
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
    name_layers(axis, rows)


def name_layers(axis: Any, rows: list[Row]) -> None:
    """Write the names of layers along the bottom, skipping those too close together."""
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
