"""Text of the gradient of one window: the backward step, and the overlap with other windows."""

from __future__ import annotations

import math

from pooling_cli.explain.layout import INDENT, by, count, paragraph, plain, typed
from pooling_cli.explain.records import Gradient, Norm, Selection, Sum, Taps, WindowSteps
from pooling_cli.explain.render_window import grid, output_name, position_text
from pooling_cli.explain.spec_records import Parameters

_MOST_PLACES = 6  # of tied elements that are written out


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


def _upstream(steps: WindowSteps, gradient: Gradient) -> str:
    return typed(gradient.upstream, steps.parameters.input_dtype)


def _share(steps: WindowSteps, gradient: Gradient, element: int) -> str:
    assert gradient.shares is not None
    return typed(gradient.shares[element], steps.parameters.input_dtype)


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
        *grid(steps, lambda element: "01"[element in mask]),
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
    return f"{position_text(steps, receivers[0])} receives"


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
    listed = [position_text(steps, element) for element in receivers[:_MOST_PLACES]]
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
        *grid(steps, lambda element: _share(steps, gradient, element)),
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
