"""Text of one window: its region and the forward step."""

from __future__ import annotations

import math
from collections.abc import Callable

from pooling_cli.explain.layout import (
    INDENT,
    by,
    count,
    draw,
    paragraph,
    place,
    plain,
    sum_lines,
    typed,
    unbroken,
)
from pooling_cli.explain.records import (
    Divisor,
    Norm,
    Selection,
    Sum,
    Taps,
    WindowSteps,
)

_NOTHING = "No tap of this window is on an element, so the output is 0."


def output_name(steps: WindowSteps) -> str:
    """Return the output as Python writes it."""
    return f"output[{', '.join(map(str, steps.at))}]"


def region_lines(steps: WindowSteps) -> list[str]:
    """Return the values under the taps, and what happens where there are none."""
    region = steps.region
    inside, within = len(region.values), region.taps_within_padding
    lines = grid(steps, lambda element: _element(steps, element))
    fate = "is never selected" if isinstance(steps.forward, Selection) else "adds nothing"
    if within > inside:
        lines += ["", f"{INDENT}pad: a tap in the padding; it {fate}."]
    if region.taps > within:
        lines += [""] * (within == inside)
        lines += paragraph(
            f"a tap beyond the padding, where ceil mode lets the last window overhang; it {fate}.",
            "over: ",
        )
    return lines


def forward_lines(steps: WindowSteps) -> list[str]:
    """Return how the values become the output."""
    match steps.forward:
        case Selection() as step:
            lines = _selection(steps, step)
        case Sum() as step:
            lines = _sum(steps, step)
        case Norm() as step:
            lines = _norm(steps, step)
    return [*lines, "", *_result(steps)]


def grid(steps: WindowSteps, text_of: Callable[[int], str]) -> list[str]:
    """Return the window as a grid of its elements' texts, with the padding marked."""
    region, step = steps.region, steps.forward
    keep = tuple(axis.first_on_element for axis in region.axes)
    if isinstance(step, Selection) and step.selected is not None:
        keep = region.tap(step.selected)

    def text_at(tap: Taps) -> str:
        element = region.element(tap)
        if element is not None:
            return text_of(element)
        is_over = any(t >= a.taps_within_padding for a, t in zip(region.axes, tap, strict=True))
        return "over" if is_over else "pad"

    return draw(region.axes, text_at, keep)


def _element(steps: WindowSteps, element: int) -> str:
    return typed(steps.region.values[element], steps.parameters.input_dtype)


def position_text(steps: WindowSteps, element: int) -> str:
    """Return the position of an element in the window, for a sentence."""
    return unbroken(place(steps.region.axes, steps.region.tap(element)))


def _selection(steps: WindowSteps, step: Selection) -> list[str]:
    """Return the selected element, the reason, and the number of its tap."""
    if step.selected is None:
        return paragraph(_nothing_selected(steps))
    text = _reason_selected(steps, step, step.selected)
    if len(step.tied) > 1:
        kind = "NaNs" if math.isnan(steps.output.unrounded) else "equal values"
        text += f" It is the first of {len(step.tied)} {kind}."
    noun = "window position" if step.extreme == "largest_magnitude" else "index"
    number = f"Its {noun} is {step.tap}, {_counting(steps, step)}."
    return [*paragraph(text), *paragraph(number)]


def _reason_selected(steps: WindowSteps, step: Selection, selected: int) -> str:
    """Return which element is selected, and why."""
    where = position_text(steps, selected)
    if math.isnan(steps.output.unrounded):
        return f"NaN outranks every number: the NaN at {where} is selected."
    value, values = _element(steps, selected), len(steps.region.values)
    if step.extreme == "largest_magnitude":
        return f"With p = inf the norm is the largest magnitude: that of {value}, at {where}."
    if not step.skipped:
        return f"The {step.extreme} of the {count(values, 'value')} is {value}, at {where}."
    are = "is" if step.skipped == 1 else "are"
    left = values - step.skipped
    which = "remaining one" if left == 1 else f"{step.extreme} of the remaining {left}"
    skipped = f'{step.skipped} of the {values} values {are} NaN and skipped (nan_policy "ignore").'
    return f"{skipped} The {which} is {value}, at {where}."


def _nothing_selected(steps: WindowSteps) -> str:
    values, dtype = len(steps.region.values), steps.parameters.input_dtype
    if values:
        text = "The only value is" if values == 1 else f"The {values} values are all"
        return f'{text} NaN and skipped (nan_policy "ignore"): the output is NaN, the index none.'
    limit = f", the limit of {dtype}" if steps.backward is None else ""
    text = f'mode "{steps.parameters.mode}" then gives {steps.output.unrounded}{limit}.'
    return f"No tap of this window is on an element. By convention, {text}"


def _counting(steps: WindowSteps, step: Selection) -> str:
    """Return the origin of an index; adaptive windows may be smaller than the largest."""
    axes = steps.region.axes
    order = " row by row" if len(axes) > 1 else ""
    window = "the window"
    pairs = zip(axes[1:], step.counted_in[1:], strict=True)
    if any(axis.taps < largest for axis, largest in pairs):
        window = f"the largest window ({by(step.counted_in)})"
    return f"counted from 0{order} in {window}"


def _result(steps: WindowSteps) -> list[str]:
    output, dtype = steps.output, steps.parameters.output_dtype
    value = typed(output.value, dtype)
    line = f"{INDENT}{output_name(steps)} = {value}"
    if output.depends_on_order:
        text = "Partial sums overflow float64, so the result depends on the order of addition."
        return [line, "", *paragraph(text)]
    if isinstance(steps.forward, Selection) or value == str(output.unrounded):
        return [line]
    if dtype != "float64":
        return [f"{line}   (rounded to {dtype})"]
    text = "The engine computes in another order, so the last digits differ."
    return [line, "", *paragraph(text)]


def _sum(steps: WindowSteps, step: Sum) -> list[str]:
    values, dtype = steps.region.values, steps.parameters.input_dtype
    if not values:
        return paragraph(_NOTHING)
    label = "sum" if step.divisor is None else "sum    "
    terms = [_element(steps, element) for element in range(len(values))]
    lines = sum_lines(label, terms, f"{step.total}")
    if "float" in dtype and dtype != "float64" and len(values) > 1:
        lines[-1] += f"   (of the exact {dtype} values)"
    if step.divisor is not None:
        divisor = plain(step.divisor.value)
        lines += paragraph(f"{divisor}{_reason_divisor(step.divisor)}", "divisor = ")
        lines.append(f"{INDENT}average = {step.total} / {divisor} = {step.result}")
    return lines


def _reason_divisor(divisor: Divisor) -> str:
    """Return where the divisor of an average comes from."""
    if divisor.rule == "override":
        return ", set by divisor_override"
    if divisor.rule == "valid_taps":
        return ", the number of taps on elements; count_include_pad is off"
    reason = ", the number of taps"
    if divisor.in_padding:
        on_elements = count(divisor.on_elements, "tap")
        reason = f": {on_elements} on elements and {divisor.in_padding} in the padding"
    if divisor.beyond_padding:
        reason += f"; those beyond the padding ({divisor.beyond_padding}) never count"
    return reason


def _norm(steps: WindowSteps, step: Norm) -> list[str]:
    if not step.powers:
        return paragraph(_NOTHING)
    p, name, scale = plain(step.p), "|x|", ""
    lines = []
    if step.scale != 1:
        name, scale = "(|x| / m)", "m * "
        text = "Its power would leave the range of float64, so each |x| is divided by m first"
        lines += [*paragraph(f"{step.scale}, the largest |x|. {text}.", "m = "), ""]
    lines += [f"{INDENT}{name}^{p} of each element:", ""]
    lines += [*grid(steps, lambda element: str(step.powers[element])), ""]
    lines += sum_lines("sum", [str(power) for power in step.powers], str(step.total))
    root = f"{scale}sum" if p == "1" else f"{scale}{step.total}^(1/{p})"
    return [*lines, f"{INDENT}y   = {root} = {step.result}"]
