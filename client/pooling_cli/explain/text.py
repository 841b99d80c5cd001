"""How the explanation writes sentences, sums and numbers."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

WIDTH = 80  # of a line, in characters
INDENT = "  "
_MOST_TERMS = 16  # of a sum that is written out
_TIE = "\N{NO-BREAK SPACE}"  # keeps what it joins on one line of a paragraph


def heading(text: str) -> list[str]:
    """A line of its own, underlined."""
    return [text, "=" * len(text), ""]


def paragraph(text: str, label: str = "") -> list[str]:
    """The lines of a text, each after the first indented below the end of the label."""
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
    """A text that a paragraph keeps on one line."""
    return text.replace(" ", _TIE)


def sum_lines(label: str, terms: Sequence[str], total: str) -> list[str]:
    """``label = a + b - c`` and below it ``= total``; a long sum is cut short."""
    signed = [f"- {term[1:]}" if term.startswith("-") else f"+ {term}" for term in terms[1:]]
    if len(terms) > _MOST_TERMS:
        signed = [*signed[:2], "+ ...", signed[-1], f"({len(terms)} terms)"]
    lines = paragraph(" ".join([*terms[:1], *map(unbroken, signed)]), f"{label} = ")
    if len(terms) == 1:
        return lines
    return [*lines, f"{INDENT}{' ' * len(label)} = {total}"]


def plain(number: float) -> str:
    """A number without a fraction that is zero: "2", not "2.0"."""
    is_short = float(number).is_integer() and abs(number) < 1e15
    return str(int(number)) if is_short else str(number)


def by(sizes: Sequence[int]) -> str:
    """Sizes as in "3 x 3", for a paragraph."""
    return unbroken(" x ".join(map(str, sizes)))


def count(number: int, noun: str) -> str:
    """A number of things: "1 cell", "9 cells"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def section(title: str, lines: Sequence[str]) -> list[str]:
    """The lines below their title, an empty line around it."""
    return ["", title, "", *lines]
