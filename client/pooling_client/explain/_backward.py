"""The backward step in words: what each cell of the region receives of the upstream gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pooling_client.explain._arithmetic import Normed, Selected, Summed, Worked
from pooling_client.explain._axes import AxisTaps, place, unravel
from pooling_client.explain._forward import grid, output_name
from pooling_client.explain._text import INDENT, by, count, paragraph, plain, unbroken
from pooling_client.explain._window import Array, View
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


def overlap_lines(view: View, worked: Worked) -> list[str]:
    """Which of the cells that receive something other windows reach, too."""
    if not view.region.size:
        return []
    if isinstance(worked, Selected):
        return _selected_overlap(_other_windows(view, worked.receivers))
    alone = math.prod(sum(a.windows_on(t) == 1 for t in a.on_elements) for a in view.axes)
    cells, shared = view.region.size, view.region.size - alone
    which = f"{shared} of the {cells} cells"
    if shared in (0, cells):
        which = "this cell" if cells == 1 else "these cells"
    if shared == 0:
        return paragraph(f"No other window reaches {which}.")
    return paragraph(f"Other windows reach {which} too and add their shares on top.")


def _other_windows(view: View, cells: list[int]) -> list[int]:
    """How many windows beside this one reach each of some cells."""
    windows = [[axis.windows_on(tap) for tap in axis.on_elements] for axis in view.axes]
    return [
        math.prod(along[at] for along, at in zip(windows, at_cell, strict=True)) - 1
        for at_cell in (unravel(cell, view.region.shape) for cell in cells)
    ]


def _selected_overlap(others: list[int]) -> list[str]:
    """How many other windows reach each cell that receives the gradient."""
    shared = sum(windows > 0 for windows in others)
    if not shared:
        which = "this cell" if len(others) == 1 else "these cells"
        return paragraph(f"No other window reaches {which}.") if others else []
    reach = f"{count(others[0], 'other window')} {'reaches' if others[0] == 1 else 'reach'}"
    which, one = "this cell", "it"
    if len(others) > 1:
        which = "these cells" if shared == len(others) else f"{shared} of these {len(others)} cells"
        reach, one = "Other windows reach", "one"
    return paragraph(
        f"{reach} {which} too; a window that selects {one} adds its own gradient on top."
    )


def shape_lines(axes: Sequence[AxisTaps]) -> list[str]:
    """Which shape the gradient has."""
    inputs, outputs = by([axis.size for axis in axes]), by([axis.outputs for axis in axes])
    told = f"The gradient has the shape of the input ({inputs})"
    return paragraph(told + (f", not of the output ({outputs})." if inputs != outputs else "."))


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
