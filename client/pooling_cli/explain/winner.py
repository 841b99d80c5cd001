"""Which element of the window is selected, in words."""

from __future__ import annotations

import math
from typing import Any

from pooling_cli.explain.axes import place
from pooling_cli.explain.text import by, count, paragraph, unbroken
from pooling_cli.explain.window import View
from pooling_cli.explain.worked import Selected
from pooling_engine import Mode

_EXTREMES = {Mode.MAX: "largest", Mode.MIN: "smallest"}


def winner_lines(view: View, worked: Selected) -> list[str]:
    """The selected element, why it is selected, and the number of its tap."""
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
