"""The example of the article that this project started from."""

from __future__ import annotations

import math

import numpy as np

from pooling_cli.explain.arithmetic import work_out
from pooling_cli.explain.axes import place
from pooling_cli.explain.backward import backward_lines
from pooling_cli.explain.check import Answer, ask_engine
from pooling_cli.explain.forward import forward_lines, region_lines
from pooling_cli.explain.overlap import shape_lines
from pooling_cli.explain.resolve import resolve_axes
from pooling_cli.explain.sizes import size_lines
from pooling_cli.explain.text import heading, paragraph, section
from pooling_cli.explain.window import View, look_at
from pooling_cli.explain.worked import Normed, Selected, Summed
from pooling_engine import PoolSpec

REGION = (
    (5241.0743993, 12349.96024235, 12688.05480956),
    (5107.94168207, 7228.75050703, 8462.73752744),
    (2468.53560093, 5849.12001444, 7523.96554065),
)
UPSTREAM_GRADIENT = -1.4552119186e-08
PLANE = (14, 14)  # of an activation of shape (10, 16, 14, 14)

_INTRODUCTION = (
    "This project started from an article that max-pools an activation of shape "
    "(10, 16, 14, 14), 10 items of 16 channels, with kernel 3 x 3 and stride 2 x 2. It gives "
    "one region of one plane, in float64, and the gradient that comes back to that region's "
    "output. Rows and columns are counted here from the region's own corner."
)
_OVERLAP = (
    "In the whole plane the stride, 2, is less than the kernel, 3: neighboring windows share "
    "a row or a column with this one and add what they send to the cells they share."
)
_TIES = (
    "The article makes its mask by comparison: region == max. If several cells held the "
    "maximum, each would receive the whole of g (tie policy ALL). By default we give it to "
    "the first of them alone (tie policy FIRST). This region has no tie: both agree."
)


def explain_seed_example() -> str:
    """The article's window: max pooling in full, average and min pooling in short.

    Raises:
        InternalError: the explanation and the engine disagree.
    """
    view, worked, answer = _walk("max")
    plane = resolve_axes(view.spec, PLANE)
    return "\n".join(
        [
            *heading("The example that this project started from"),
            *paragraph(_INTRODUCTION),
            *section("1. The region", region_lines(view, worked)),
            *section("2. Forward", forward_lines(view, worked, answer.output)),
            *section("3. Backward", backward_lines(view, worked, answer.shares)),
            "",
            *paragraph(_OVERLAP),
            *section("4. The same window in average and in min pooling", _others()),
            *section("5. Ties", paragraph(_TIES)),
            *section("6. Output size", size_lines(plane, view.spec)),
            "",
            *shape_lines(plane),
            "",
            *paragraph("Checked against the engine: all three modes."),
        ]
    )


def _walk(mode: str) -> tuple[View, Selected | Summed | Normed, Answer]:
    """The region as a plane of its own, pooled in a mode by hand and by the engine."""
    x = np.array(REGION).reshape(1, 1, 3, 3)
    gradient = np.full((1, 1, 1, 1), UPSTREAM_GRADIENT)
    view = look_at(x, PoolSpec(mode, kernel=3, stride=2), (0, 0, 0, 0), gradient)
    worked = work_out(view)
    return view, worked, ask_engine(view, worked)


def _others() -> list[str]:
    """Average and min pooling of the region, each in one sentence."""
    view, _, average = _walk("average")
    _, _, smallest = _walk("min")
    cell = int(np.flatnonzero(smallest.shares)[0])
    return [
        *paragraph(
            f"{math.fsum(view.values)} / 9 = {average.output!s}; each of the nine cells "
            f"receives g / 9 = {average.shares[0]!s}.",
            "average: ",
        ),
        *paragraph(
            f"{smallest.output!s}, at {place(view.axes, view.tap(cell))}; that cell receives "
            "all of g, the others 0.",
            "min:     ",
        ),
    ]
