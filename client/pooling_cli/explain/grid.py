"""Draws what the taps of a window hold, as grids of text under the positions of the input."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from pooling_cli.explain.axes import AxisTaps, Taps, place, ravel, unravel
from pooling_cli.explain.text import INDENT, WIDTH

_MOST_LINES = 12  # rows, and columns, of one grid; the others become "..."
_MOST_LINES_EACH = 6  # rows of one grid of several
_MOST_SLICES = 4
_GAP = "..."

Table = list[list[str]]

_NUMBER = re.compile(r"(-?\d+)(\D.*)?$")


def draw(axes: Sequence[AxisTaps], text_of: Callable[[Taps], str], keep: Taps) -> list[str]:
    """The lines of one row for one axis, of a grid for two, of a grid a slice for more.

    Args:
        axes: the window along each spatial axis.
        text_of: what to write for a tap, given by its number along each axis.
        keep: a tap to show even where the window is too large to show all.
    """
    is_cut = axes[-1].kernel > _MOST_LINES
    for most in range(_MOST_LINES, 0, -2):
        tables = _tables(axes, text_of, keep, most if is_cut else _MOST_LINES)
        if not is_cut or _per_panel(tables[0][1]) >= len(tables[0][1][0]) - 1:
            break
    lines: list[str] = []
    for title, table in tables:
        lines += [INDENT + title] * bool(title) + _panels(table) + [""]
    return lines[:-1]


def _tables(
    axes: Sequence[AxisTaps], text_of: Callable[[Taps], str], keep: Taps, most_columns: int
) -> list[tuple[str, Table]]:
    """For each slice its title and its cells, the positions of the input above and beside."""
    slices = _shown(axes[:-2], keep[:-2], _MOST_SLICES)
    rows = _shown(axes[-2:-1], keep[-2:-1], _MOST_LINES if len(slices) < 2 else _MOST_LINES_EACH)
    columns = _shown(axes[-1:], keep[-1:], most_columns)
    taps = [a + b + c for a in _present(slices) for b in _present(rows) for c in _present(columns)]
    texts = dict(zip(taps, _aligned([text_of(tap) for tap in taps]), strict=True))
    header = [axes[-1].name, *(_GAP if c is None else str(axes[-1].position(*c)) for c in columns)]
    tables: list[tuple[str, Table]] = []
    for part in slices:
        if part is None:
            tables.append((_GAP, []))
            continue
        table = [header]
        for row in rows:
            if row is None:
                table.append([_GAP] * len(header))
                continue
            cells = [_GAP if column is None else texts[part + row + column] for column in columns]
            table.append([place(axes[-2:-1], row) or "value", *cells])
        tables.append((f"{place(axes[:-2], part)}:" if part else "", table))
    return tables


def _shown(axes: Sequence[AxisTaps], keep: Taps, most: int) -> list[Taps | None]:
    """The taps along some axes, about `most` of them; None stands for those left out."""
    kernels = [axis.kernel for axis in axes]
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


def _per_panel(table: Table) -> int:
    """How many columns beside the labels fit in a line."""
    room = WIDTH - len(INDENT) - max(len(line[0]) for line in table) - len(" |")
    return max(1, room // (max(len(cell) for line in table for cell in line[1:]) + 2))


def _panels(table: Table) -> list[str]:
    """The lines of a table, its first column being labels, in as many panels as it takes."""
    if not table:
        return []
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    fitting = _per_panel(table)
    lines: list[str] = []
    for first in range(1, len(widths), fitting):
        part = range(first, min(first + fitting, len(widths)))
        for number, line in enumerate(table):
            side = "^" if number == 0 else ">"
            cells = "".join(f"  {line[column]:{side}{widths[column]}}" for column in part)
            lines.append(f"{INDENT}{line[0]:>{widths[0]}} |{cells}".rstrip())
            if number == 0:
                lines.append(INDENT + "-" * (widths[0] + 1) + "+" + "-" * (len(cells) + 1))
        lines.append("")
    return lines[:-1]
