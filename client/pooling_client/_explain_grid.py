"""Draws what the taps of a window hold, as grids of text under the positions of the input."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from pooling_client._explain_window import AxisTaps, Taps, ravel, unravel

WIDTH = 80  # of a line, in characters
INDENT = "  "
_MOST_LINES = 12  # rows, and columns, of one grid; the others become "..."
_MOST_SLICES = 4
_GAP = "..."
_NUMBER = re.compile(r"(-?\d+)(\D.*)?$")


def draw(axes: Sequence[AxisTaps], text_of: Callable[[Taps], str], keep: Taps) -> list[str]:
    """The lines of one row for one axis, of a grid for two, of a grid a slice for more.

    Args:
        axes: the window along each spatial axis.
        text_of: what to write for a tap, given by its number along each axis.
        keep: a tap to show even where the window is too large to show all.
    """
    slices = _shown(axes[:-2], keep[:-2], _MOST_SLICES)
    rows = _shown(axes[-2:-1], keep[-2:-1], _MOST_LINES)
    columns = _shown(axes[-1:], keep[-1:], _MOST_LINES)
    taps = [a + b + c for a in _present(slices) for b in _present(rows) for c in _present(columns)]
    texts = dict(zip(taps, _aligned([text_of(tap) for tap in taps]), strict=True))
    headings = [_GAP if tap is None else str(axes[-1].position(*tap)) for tap in columns]
    lines: list[str] = []
    for part in slices:
        if part is None:
            lines += [INDENT + _GAP, ""]
            continue
        if part:
            lines.append(f"{INDENT}{place(axes[:-2], part)}:")
        table = [[axes[-1].name, *headings]]
        for row in rows:
            label = _GAP if row is None else place(axes[-2:-1], row) or "value"
            cells = [
                _GAP if row is None or column is None else texts[part + row + column]
                for column in columns
            ]
            table.append([label, *cells])
        lines += _panels(table)
    return lines[:-1]


def place(axes: Sequence[AxisTaps], taps: Taps) -> str:
    """Where taps are in the input, such as "row 2, column 6"."""
    return ", ".join(f"{a.name} {a.position(tap)}" for a, tap in zip(axes, taps, strict=True))


def _shown(axes: Sequence[AxisTaps], keep: Taps, most: int) -> list[Taps | None]:
    """The taps along some axes, about `most` of them; None stands for those left out."""
    kernels = [axis.window.kernel for axis in axes]
    count = math.prod(kernels)
    numbers = list(range(min(count, most)))
    if count > most:
        half = most // 2
        numbers = sorted({*range(half), ravel(keep, kernels), *range(count - half, count)})
    shown: list[Taps | None] = []
    for previous, number in zip([-1, *numbers], numbers, strict=False):
        if number > previous + 1:
            shown.append(None)
        shown.append(unravel(number, kernels))
    return shown


def _present(taps: list[Taps | None]) -> list[Taps]:
    return [tap for tap in taps if tap is not None]


def _aligned(texts: list[str]) -> list[str]:
    """The texts at one width, the decimal points of numbers below one another."""
    parts = [_NUMBER.match(text) for text in texts]
    before = max((len(part[1]) for part in parts if part), default=0)
    after = max((len(part[2] or "") for part in parts if part), default=0)
    lined_up = [
        f"{part[1]:>{before}}{part[2] or '':<{after}}" if part else text
        for part, text in zip(parts, texts, strict=True)
    ]
    width = max(map(len, lined_up))
    return [f"{text:>{width}}" for text in lined_up]


def _panels(table: list[list[str]]) -> list[str]:
    """The lines of a table whose first column are labels, in as many panels as its width takes."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    room = WIDTH - len(INDENT) - widths[0] - 2
    fitting = max(1, room // (max(widths[1:]) + 2))
    lines: list[str] = []
    for first in range(1, len(widths), fitting):
        part = range(first, min(first + fitting, len(widths)))
        for number, line in enumerate(table):
            cells = "".join(f"  {line[column]:>{widths[column]}}" for column in part)
            lines.append(f"{INDENT}{line[0]:>{widths[0]}} |{cells}".rstrip())
            if number == 0:
                lines.append(INDENT + "-" * (widths[0] + 1) + "+" + "-" * len(cells))
        lines.append("")
    return lines
