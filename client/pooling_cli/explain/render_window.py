"""Text of one window: its region, the forward step, the backward step, and the overlap."""

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
    Gradient,
    Norm,
    Selection,
    Sum,
    Taps,
    WindowSteps,
)
from pooling_cli.explain.spec_records import Parameters

_NOTHING = "No tap of this window is on an element, so the output is 0."
_MOST_PLACES = 6  # of tied elements that are written out


def output_name(steps: WindowSteps) -> str:
    """Return the output as Python writes it."""
    return f"output[{', '.join(map(str, steps.at))}]"


def region_lines(steps: WindowSteps) -> list[str]:
    """Return the values under the taps, and what happens where there are none."""
    region = steps.region
    inside, within = len(region.values), region.taps_within_padding
    lines = _grid(steps, lambda element: _element(steps, element))
    fate = "never wins" if isinstance(steps.forward, Selection) else "adds nothing"
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


def backward_lines(steps: WindowSteps, gradient: Gradient) -> list[str]:
    """Return what the elements receive from this window."""
    default = "" if gradient.is_upstream_given else " (the default)"
    text = f"g = {_upstream(steps, gradient)}{default}, the upstream gradient of"
    lines = [*paragraph(f"{text} {output_name(steps)}."), ""]
    match gradient.outcome:
        case "no_elements":
            return [*lines, *paragraph("The window has no element to receive g, so g is dropped.")]
        case "none_selected":
            return [*lines, *paragraph("No element is selected to receive g, so g is dropped.")]
        case "undefined":
            output = steps.output.unrounded
            text = f"The output is {output}, where the gradient is undefined."
            return [*lines, *paragraph(text)]
    match steps.forward:
        case Selection() as step:
            return lines + _selection_gradient(steps, step, gradient)
        case Sum() as step:
            return lines + _sum_gradient(steps, step, gradient)
        case Norm() as step:
            return lines + _norm_gradient(steps, step, gradient)


def overlap_lines(steps: WindowSteps, gradient: Gradient) -> list[str]:
    """Return which of the elements that receive a share are in other windows, too."""
    others = gradient.other_windows
    if not others:
        return []
    if gradient.receivers is not None:
        return _selected_overlap([others[element] for element in gradient.receivers])
    elements, shared = len(others), sum(windows > 0 for windows in others)
    which = f"{shared} of the {elements} elements"
    if shared in (0, elements):
        which = "this element" if elements == 1 else "these elements"
    if shared == 0:
        return paragraph(f"No other window contains {which}.")
    return paragraph(f"Other windows also contain {which} and add their own shares.")


def shape_lines(parameters: Parameters) -> list[str]:
    """Return the shape of the gradient."""
    axes = parameters.axes
    inputs, outputs = by([axis.size for axis in axes]), by([axis.outputs for axis in axes])
    text = f"The gradient has the shape of the input ({inputs})"
    return paragraph(text + (f", not of the output ({outputs})." if inputs != outputs else "."))


def _grid(steps: WindowSteps, text_of: Callable[[int], str]) -> list[str]:
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


def _upstream(steps: WindowSteps, gradient: Gradient) -> str:
    return typed(gradient.upstream, steps.parameters.input_dtype)


def _share(steps: WindowSteps, gradient: Gradient, element: int) -> str:
    assert gradient.shares is not None
    return typed(gradient.shares[element], steps.parameters.input_dtype)


def _where(steps: WindowSteps, element: int) -> str:
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
    where = _where(steps, selected)
    if math.isnan(steps.output.unrounded):
        return f"NaN beats every number: the NaN at {where} is selected."
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
    lines += [*_grid(steps, lambda element: str(step.powers[element])), ""]
    lines += sum_lines("sum", [str(power) for power in step.powers], str(step.total))
    root = f"{scale}sum" if p == "1" else f"{scale}{step.total}^(1/{p})"
    return [*lines, f"{INDENT}y   = {root} = {step.result}"]


def _selection_gradient(steps: WindowSteps, step: Selection, gradient: Gradient) -> list[str]:
    receivers, ties, policy = gradient.receivers or (), len(step.tied), steps.parameters.tie_policy
    mask, share = set(receivers), _share(steps, gradient, receivers[0])
    copied, product, gift = "a copy", "mask * g", "all of g"
    if step.extreme == "largest_magnitude":
        copied, product, gift = "the magnitude", "mask * g * sign(x)", share
    text = f"The output is {copied} of one element. The mask is 1 there and 0 elsewhere:"
    if len(receivers) > 1:
        is_nan = math.isnan(steps.output.unrounded)
        alike = "are NaN, as is the output" if is_nan else "equal the output"
        text = f"{ties} elements {alike}. The mask is 1 at each of them and 0 elsewhere:"
    if gradient.parts > 1:
        product = f"mask * g / {ties}"
        gift = f"g / {ties} = {_upstream(steps, gradient)} / {ties} = {share}"
    lines = [
        *paragraph(text),
        "",
        *_grid(steps, lambda element: "01"[element in mask]),
        "",
        *paragraph(
            f"{_receivers_text(steps, receivers)} {gift}{_others_text(steps, receivers)}.",
            f"{product}: ",
        ),
    ]
    if len(receivers) < ties:
        rule = "" if policy is None else f' (tie_policy "{policy}")'
        lines += paragraph(f"Of the tied elements, only the first receives it{rule}.")
    if policy in ("all", "split"):
        lines += _tied_elements(steps, receivers, policy)
    return lines


def _receivers_text(steps: WindowSteps, receivers: Taps) -> str:
    if len(receivers) > 1:
        return f"each of the {len(receivers)} tied elements receives"
    return f"{_where(steps, receivers[0])} receives"


def _others_text(steps: WindowSteps, receivers: Taps) -> str:
    """Return what the elements receive that are not selected."""
    others = len(steps.region.values) - len(receivers)
    if others == 1:
        return "; the other element receives 0"
    return f"; the other {others} elements receive 0" if others else ""


def _tied_elements(steps: WindowSteps, receivers: Taps, policy: str) -> list[str]:
    """Return the positions of the tied elements; long lists are cut short."""
    if len(receivers) == 1:
        return paragraph(f'No other element is tied with it (tie_policy "{policy}").')
    listed = [_where(steps, element) for element in receivers[:_MOST_PLACES]]
    more = len(receivers) - len(listed)
    listed += [f"and {more} more"] * (more > 0)
    return paragraph(f'Tied elements (tie_policy "{policy}"): {"; ".join(listed)}.')


def _sum_gradient(steps: WindowSteps, step: Sum, gradient: Gradient) -> list[str]:
    elements = len(steps.region.values)
    output, share = "the sum of the elements", "g"
    if step.divisor is not None:
        divisor = plain(step.divisor.value)
        output = f"the sum divided by {divisor}"
        share = f"g / {divisor} = {_upstream(steps, gradient)} / {divisor}"
    who = "the only element" if elements == 1 else f"each of the {elements} elements"
    text = f"The output is {output}, so {who} receives"
    return [*paragraph(text), "", f"{INDENT}{share} = {_share(steps, gradient, 0)}"]


def _norm_gradient(steps: WindowSteps, step: Norm, gradient: Gradient) -> list[str]:
    p = step.p
    formula = "g * sign(x)" if p == 1 else f"g * sign(x) * (|x| / y)^{plain(p - 1)}"
    text = f"Each element receives {'g * x / y' if p == 2 else formula}:"
    if step.result == 0:
        text = "The norm has no gradient at 0; by convention, each element receives 0:"
    return [
        *paragraph(text),
        "",
        *_grid(steps, lambda element: _share(steps, gradient, element)),
    ]


def _selected_overlap(others: list[int]) -> list[str]:
    """Return how many other windows contain each element that receives the gradient."""
    shared = sum(windows > 0 for windows in others)
    if not shared:
        which = "this element" if len(others) == 1 else "these elements"
        return paragraph(f"No other window contains {which}.") if others else []
    contain = "contains" if others[0] == 1 else "contain"
    who, which, one = f"{count(others[0], 'other window')} also {contain}", "this element", "it"
    if len(others) > 1:
        some = "these" if shared == len(others) else f"{shared} of these {len(others)}"
        who, which, one = "Other windows also contain", f"{some} elements", "one"
    return paragraph(f"{who} {which}; a window that selects {one} adds its own gradient.")
