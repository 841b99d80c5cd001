"""The forward step in words: the region, and how its values become one output."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pooling_cli.explain.axes import Taps
from pooling_cli.explain.grid import draw
from pooling_cli.explain.text import INDENT, count, paragraph, plain, sum_lines
from pooling_cli.explain.window import View
from pooling_cli.explain.winner import winner_lines
from pooling_cli.explain.worked import Normed, Selected, Summed, Worked
from pooling_engine import Mode

_NOTHING = "No tap of this window is on an element; there is nothing to add, so the output is 0."


def grid(view: View, worked: Worked, text_of: Callable[[int], str]) -> list[str]:
    """The window as a grid; `text_of` writes a cell of the region, the padding is marked."""
    keep = tuple(axis.on_elements.start for axis in view.axes)
    if isinstance(worked, Selected) and worked.cell is not None:
        keep = view.tap(worked.cell)

    def text_at(tap: Taps) -> str:
        cell = view.cell(tap)
        if cell is not None:
            return text_of(cell)
        pairs = zip(view.axes, tap, strict=True)
        return "over" if any(axis.is_beyond_padding(t) for axis, t in pairs) else "pad"

    return draw(view.axes, text_at, keep)


def region_lines(view: View, worked: Worked) -> list[str]:
    """The values under the taps, and what happens where there are none."""
    values = view.region.ravel()
    lines = grid(view, worked, lambda cell: str(values[cell]))
    within = math.prod(axis.within_padding for axis in view.axes)
    fate = "never wins" if isinstance(worked, Selected) else "adds nothing"
    if within > values.size:
        lines += ["", f"{INDENT}pad: the tap is in the padding; it {fate}."]
    if view.taps > within:
        lines += [""] * (within == values.size)
        lines += paragraph(
            f"the tap is beyond the padding, where ceil mode lets the last window "
            f"hang over; it {fate}.",
            "over: ",
        )
    return lines


def forward_lines(view: View, worked: Selected | Summed | Normed, output: Any) -> list[str]:
    """How the values become the output."""
    match worked:
        case Selected():
            steps = winner_lines(view, worked)
        case Summed():
            steps = _sum(view, worked)
        case Normed():
            steps = _norm(view, worked)
    return [*steps, "", *_result(view, worked, output)]


def output_name(view: View) -> str:
    """The output looked at, as Python writes it."""
    return f"output[{', '.join(map(str, view.at))}]"


def _result(view: View, worked: Worked, output: Any) -> list[str]:
    line = f"{INDENT}{output_name(view)} = {output!s}"
    if math.isinf(worked.output_slack):
        told = (
            "Some partial sums overflow float64: this is what the engine's order of adding gives."
        )
        return [line, "", *paragraph(told)]
    if isinstance(worked, Selected) or str(output) == str(worked.output):
        return [line]
    if output.dtype != np.float64:
        return [f"{line}   (rounded to {output.dtype.name})"]
    told = "The engine takes the steps in another order, which rounds the last digits otherwise."
    return [line, "", *paragraph(told)]


def _sum(view: View, worked: Summed) -> list[str]:
    values = view.region.ravel()
    if not values.size:
        return paragraph(_NOTHING)
    is_average = view.spec.mode is Mode.AVERAGE
    label = "sum    " if is_average else "sum"
    lines = sum_lines(label, [str(value) for value in values], f"{worked.total}")
    if view.has_gradient and view.region.dtype != np.float64 and values.size > 1:
        lines[-1] += f"   (of the exact {view.region.dtype.name} values)"
    if is_average:
        divisor = plain(worked.divisor)
        lines += paragraph(f"{divisor}{_reason(view)}", "divisor = ")
        lines.append(f"{INDENT}average = {worked.total} / {divisor} = {worked.output}")
    return lines


def _reason(view: View) -> str:
    """Where the divisor of an average comes from."""
    if view.spec.divisor_override is not None:
        return ", set by divisor_override in place of the number of taps"
    inside, within = view.region.size, math.prod(axis.within_padding for axis in view.axes)
    if not view.spec.count_include_pad:
        return ", the taps on elements; padding does not count (count_include_pad is off)"
    reason = ", the number of taps"
    if within > inside:
        reason = f": {count(inside, 'tap')} on elements and {within - inside} in the padding"
    if view.taps > within:
        reason += f"; the {view.taps - within} beyond the padding never count"
    return reason


def _norm(view: View, worked: Normed) -> list[str]:
    if not worked.powers:
        return paragraph(_NOTHING)
    p, name, scale = plain(view.spec.norm_p), "|x|", ""
    lines = []
    if worked.scale != 1:
        name, scale = "(|x| / m)", "m * "
        told = "a power of it would leave the range of float64, so m is divided out first"
        lines += [*paragraph(f"{worked.scale}, the largest |x|; {told}.", "m = "), ""]
    lines += [f"{INDENT}{name}^{p} of each tap:", ""]
    lines += [*grid(view, worked, lambda cell: str(worked.powers[cell])), ""]
    lines += sum_lines("sum", [str(power) for power in worked.powers], str(worked.total))
    root = f"{scale}sum" if p == "1" else f"{scale}{worked.total}^(1/{p})"
    return [*lines, f"{INDENT}y   = {root} = {worked.output}"]
