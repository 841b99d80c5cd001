"""Layout of an explanation on a terminal: paragraphs, sums, numbers, and grids of taps."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Sequence

import numpy as np

from pooling_cli.explain.numbering import ravel, unravel
from pooling_cli.explain.records import AxisWindow, Number, Taps

WIDTH = 80  # of a line, in characters
INDENT = "  "
_MOST_TERMS = 16  # of a sum that is written out
_TIE = "\N{NO-BREAK SPACE}"  # keeps words on one line of a paragraph
_MOST_LINES = 12  # rows, and columns, of one grid; the others become "..."
_MOST_LINES_EACH = 6  # rows of one grid of several
_MOST_SLICES = 4
_GAP = "..."
_NUMBER = re.compile(r"(-?\d+)(\D.*)?$")

Table = list[list[str]]


def heading(text: str) -> list[str]:
    """Return an underlined line."""
    return [text, "=" * len(text), ""]


def section(title: str, lines: Sequence[str]) -> list[str]:
    """Return the lines below their title, with an empty line around it."""
    return ["", title, "", *lines]


def paragraph(text: str, label: str = "") -> list[str]:
    """Return the lines of a text, each after the first indented below the end of the label."""
    lines = textwrap.wrap(
        text,
        WIDTH,
        initial_indent=INDENT + label,
        subsequent_indent=INDENT + " " * len(label),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_TIE, " ") for line in lines]


def unbroken(text: str) -> str:
    """Return a text that a paragraph keeps on one line."""
    return text.replace(" ", _TIE)


def sum_lines(label: str, terms: Sequence[str], total: str) -> list[str]:
    """Return ``label = a + b - c`` and below it ``= total``; long sums are cut short."""
    signed = [f"- {term[1:]}" if term.startswith("-") else f"+ {term}" for term in terms[1:]]
    if len(terms) > _MOST_TERMS:
        signed = [*signed[:2], "+ ...", signed[-1], f"({len(terms)} terms)"]
    lines = paragraph(" ".join([*terms[:1], *map(unbroken, signed)]), f"{label} = ")
    if len(terms) == 1:
        return lines
    return [*lines, f"{INDENT}{' ' * len(label)} = {total}"]


def plain(number: float) -> str:
    """Return a number without a zero fraction: "2", not "2.0"."""
    is_short = float(number).is_integer() and abs(number) < 1e15
    return str(int(number)) if is_short else str(number)


def typed(number: Number, dtype: str) -> str:
    """Return the shortest text that means this number in its element type."""
    return str(np.dtype(dtype).type(number))


def by(sizes: Sequence[int]) -> str:
    """Return sizes as "3 x 3", for a paragraph."""
    return unbroken(" x ".join(map(str, sizes)))


def count(number: int, noun: str) -> str:
    """Return a number of things: "1 tap", "9 taps"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def plural(name: str) -> str:
    """Return the plural of an axis' name."""
    return name if name.startswith("D") else f"{name}s"


def place(axes: Sequence[AxisWindow], taps: Taps) -> str:
    """Return where taps are in the input, such as "row 2, column 6"."""
    return ", ".join(f"{a.name} {a.position(tap)}" for a, tap in zip(axes, taps, strict=True))


def draw(axes: Sequence[AxisWindow], text_of: Callable[[Taps], str], keep: Taps) -> list[str]:
    """Return a window as a row (one axis), a grid (two), or a grid for each slice (more).

    Args:
        axes: the window along each spatial axis.
        text_of: the text of a tap, given by its number along each axis.
        keep: a tap to show even where the window is too large to show all.
    """
    is_cut = axes[-1].taps > _MOST_LINES
    for most in range(_MOST_LINES, 0, -2):
        tables = _tables(axes, text_of, keep, most if is_cut else _MOST_LINES)
        if not is_cut or _per_panel(tables[0][1]) >= len(tables[0][1][0]) - 1:
            break
    lines: list[str] = []
    for title, table in tables:
        lines += [INDENT + title] * bool(title) + _panels(table) + [""]
    return lines[:-1]


def _tables(
    axes: Sequence[AxisWindow], text_of: Callable[[Taps], str], keep: Taps, most_columns: int
) -> list[tuple[str, Table]]:
    """Return the title and cells of each slice, with positions of the input above and beside."""
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


def _shown(axes: Sequence[AxisWindow], keep: Taps, most: int) -> list[Taps | None]:
    """Return about `most` of the taps along some axes; None stands for those left out."""
    sizes = [axis.taps for axis in axes]
    total = math.prod(sizes)
    numbers = list(range(min(total, most)))
    if total > most:
        half = most // 2
        numbers = sorted({*range(half), ravel(keep, sizes), *range(total - half, total)})
    shown: list[Taps | None] = []
    for previous, number in zip([-1, *numbers], numbers, strict=False):
        if number > previous + 1:
            shown.append(None)
        shown.append(unravel(number, sizes))
    return shown


def _present(taps: list[Taps | None]) -> list[Taps]:
    return [tap for tap in taps if tap is not None]


def _aligned(texts: list[str]) -> list[str]:
    """Return the texts at one width, with the decimal points of numbers aligned."""
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
    """Return the number of columns beside the labels that fit in a line."""
    room = WIDTH - len(INDENT) - max(len(line[0]) for line in table) - len(" |")
    return max(1, room // (max(len(cell) for line in table for cell in line[1:]) + 2))


def _panels(table: Table) -> list[str]:
    """Return the lines of a table with labels in its first column, in as many panels as needed."""
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
