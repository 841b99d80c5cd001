"""The backward step in words: what each cell of the region receives of the upstream gradient."""

from __future__ import annotations

import math

from pooling_cli.explain.axes import place
from pooling_cli.explain.forward import grid, output_name
from pooling_cli.explain.text import INDENT, paragraph, plain, unbroken
from pooling_cli.explain.window import Array, View
from pooling_cli.explain.worked import Normed, Selected, Summed
from pooling_engine import Mode, TiePolicy

_MOST_PLACES = 6  # of equal cells that are written out


def backward_lines(view: View, worked: Selected | Summed | Normed, shares: Array) -> list[str]:
    """What the cells receive from this window."""
    default = "" if view.is_upstream_given else ": none was given, so 1"
    told = f"g = {view.upstream!s}, the upstream gradient of {output_name(view)}{default}."
    lines = paragraph(told)
    if not view.region.size:
        return [*lines, "", *paragraph("No cell is there to receive it: it is dropped.")]
    if isinstance(worked, Selected) and worked.cell is None:
        return [*lines, "", *paragraph("No cell is selected, so none receives it: it is dropped.")]
    if worked.shares is None:
        told = f"The output is {worked.output}, which has no slope; what flows back means nothing."
        return [*lines, "", *paragraph(told)]
    match worked:
        case Selected():
            steps = _selection(view, worked, shares)
        case Summed():
            steps = _sum(view, worked, shares)
        case Normed():
            steps = _norm(view, worked, shares)
    return [*lines, "", *steps]


def _selection(view: View, worked: Selected, shares: Array) -> list[str]:
    receivers, ties = worked.receivers, len(worked.tied)
    first, policy, masked = receivers[0], view.spec.tie_policy, set(receivers)
    copied, product, gift = "a copy", "mask * g", "all of g"
    if view.spec.mode is Mode.LP:
        copied, product, gift = "the magnitude", "mask * g * sign(x)", str(shares[first])
    told = f"The output is {copied} of one cell. The mask is 1 there and 0 elsewhere:"
    if len(receivers) > 1:
        alike = "are NaN as the output is" if math.isnan(worked.output) else "equal the output"
        told = f"{ties} cells {alike}. The mask is 1 at each of them and 0 elsewhere:"
        if policy is TiePolicy.SPLIT:
            product = f"mask * g / {ties}"
            gift = f"g / {ties} = {view.upstream!s} / {ties} = {shares[first]!s}"
    lines = [
        *paragraph(told),
        "",
        *grid(view, worked, lambda cell: "01"[cell in masked]),
        "",
        *paragraph(f"{_who(view, receivers)} {gift}{_rest(view, receivers)}.", f"{product}: "),
    ]
    if ties > 1 and policy is TiePolicy.FIRST:
        lines += paragraph('Of equal cells the first alone receives it (tie policy "first").')
    return lines + _equal_cells(view, receivers)


def _who(view: View, receivers: list[int]) -> str:
    if len(receivers) > 1:
        return f"each of the {len(receivers)} equal cells receives"
    return f"{unbroken(place(view.axes, view.tap(receivers[0])))} receives"


def _rest(view: View, receivers: list[int]) -> str:
    """What the cells receive that are not selected."""
    others = view.region.size - len(receivers)
    if others == 1:
        return "; the other cell receives 0"
    return f"; the other {others} cells receive 0" if others else ""


def _equal_cells(view: View, receivers: list[int]) -> list[str]:
    """Where the cells are that share the gradient; many are cut short."""
    policy = view.spec.tie_policy
    if policy is TiePolicy.FIRST:
        return []
    if len(receivers) == 1:
        return paragraph(f'No other cell equals it (tie policy "{policy}").')
    listed = [unbroken(place(view.axes, view.tap(cell))) for cell in receivers[:_MOST_PLACES]]
    more = len(receivers) - len(listed)
    listed += [f"and {more} more"] * (more > 0)
    return paragraph(f'The equal cells (tie policy "{policy}"): {"; ".join(listed)}.')


def _sum(view: View, worked: Summed, shares: Array) -> list[str]:
    cells, divisor = view.region.size, plain(worked.divisor)
    whole = view.spec.mode is Mode.SUM
    told = f"Every cell enters the output {'as it is' if whole else f'divided by {divisor}'}"
    receives = "the one cell receives" if cells == 1 else f"each of the {cells} cells receives"
    share = "g" if whole else f"g / {divisor} = {view.upstream!s} / {divisor}"
    return [*paragraph(f"{told}, so {receives}"), "", f"{INDENT}{share} = {shares[0]!s}"]


def _norm(view: View, worked: Normed, shares: Array) -> list[str]:
    p = view.spec.norm_p
    formula = "g * sign(x)" if p == 1 else f"g * sign(x) * (|x| / y)^{plain(p - 1)}"
    told = f"Each cell receives {'g * x / y' if p == 2 else formula}:"
    if worked.output == 0:
        told = "The output is 0, where it has no slope; by convention each cell receives 0:"
    return [*paragraph(told), "", *grid(view, worked, lambda cell: str(shares[cell]))]
