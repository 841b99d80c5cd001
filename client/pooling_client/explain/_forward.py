"""The forward step in words: the region, and how its values become one output."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pooling_client.explain._arithmetic import Normed, Selected, Summed, Worked
from pooling_client.explain._axes import Taps, place
from pooling_client.explain._grid import draw
from pooling_client.explain._text import INDENT, by, count, paragraph, plain, sum_lines, unbroken
from pooling_client.explain._window import View
from pooling_engine import Mode

_EXTREMES = {Mode.MAX: "largest", Mode.MIN: "smallest"}
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
            steps = _selection(view, worked)
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


def _selection(view: View, worked: Selected) -> list[str]:
    if worked.cell is None:
        return paragraph(_nothing_selected(view, worked))
    where = unbroken(place(view.axes, view.tap(worked.cell)))
    told = f"{_winner(view, worked, view.region.ravel()[worked.cell])} {where}."
    if len(worked.tied) > 1:
        kind = "NaNs" if math.isnan(worked.output) else "equal ones"
        told += f" It is the first of {len(worked.tied)} {kind}."
    number = f"It is tap {view.tap_number(worked.cell)} of the window, {_counting(view)}."
    return [*paragraph(told), *paragraph(number)]


def _winner(view: View, worked: Selected, value: Any) -> str:
    """Which element is selected and why, up to where it is."""
    mode = view.spec.mode
    if math.isnan(worked.output):
        return "A NaN outranks every number: selected is the NaN at"
    if mode is Mode.LP:
        return f"With p = inf the norm is the largest magnitude: that of {value!s}, at"
    values = view.region.size
    nans = sum(map(math.isnan, view.values))
    if not nans:
        return f"The {_EXTREMES[mode]} of the {count(values, 'value')} is {value!s}, at"
    verb = "is NaN and is" if nans == 1 else "are NaN and are"
    left = values - nans
    which = "one left" if left == 1 else f"{_EXTREMES[mode]} of the {left} left"
    skipped = f'{nans} of the {values} values {verb} skipped (nan_policy "ignore").'
    return f"{skipped} The {which} is {value!s}, at"


def _nothing_selected(view: View, worked: Selected) -> str:
    if view.region.size:
        values = view.region.size
        told = "The one value is" if values == 1 else f"The {values} values are all"
        return f'{told} NaN and skipped (nan_policy "ignore"): the output is NaN, its index none.'
    output = worked.output
    limit = f", the limit of {view.region.dtype.name}" if not view.has_gradient else ""
    told = f'by convention, mode "{view.spec.mode}" then gives {output}{limit}.'
    return f"No tap of this window is on an element; {told}"


def _counting(view: View) -> str:
    """How the taps are numbered; an adaptive window may be smaller than the largest."""
    order = " row by row" if len(view.axes) > 1 else ""
    told = f"counted{order} from 0"
    if any(axis.kernel < axis.largest for axis in view.axes[1:]):
        told += f" as in the largest window, {by([axis.largest for axis in view.axes])}"
    return told


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
