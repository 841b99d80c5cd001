"""The backward step in words: what each cell of the region receives of the upstream gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pooling_client.explain._arithmetic import Normed, Selected, Summed, Worked
from pooling_client.explain._axes import AxisTaps, place
from pooling_client.explain._forward import grid, output_name
from pooling_client.explain._text import INDENT, by, count, paragraph, plain, unbroken
from pooling_client.explain._window import Array, View
from pooling_engine import Mode


def backward_lines(view: View, worked: Selected | Summed | Normed, shares: Array) -> list[str]:
    """What the cells receive from this window."""
    default = "" if view.is_upstream_given else ": none was given, so 1"
    told = f"g = {view.upstream!s}, the upstream gradient of {output_name(view)}{default}."
    lines = paragraph(told)
    if not view.region.size:
        return [*lines, "", *paragraph("No cell is there to receive it: it is dropped.")]
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
    """Which of the cells other windows reach, too."""
    if not view.region.size:
        return []
    if isinstance(worked, Selected):
        tap = view.tap(worked.cell or 0)
        others = math.prod(a.windows_on(t) for a, t in zip(view.axes, tap, strict=True)) - 1
        reach = "reaches" if others == 1 else "reach"
        told = (
            f"{count(others, 'other window')} {reach} this cell too; a window that selects it "
            "adds its own gradient on top."
        )
        return paragraph(told if others else "No other window reaches this cell.")
    alone = math.prod(sum(a.windows_on(t) == 1 for t in a.on_elements) for a in view.axes)
    cells, shared = view.region.size, view.region.size - alone
    which = f"{shared} of the {cells} cells"
    if shared in (0, cells):
        which = "this cell" if cells == 1 else "these cells"
    if shared == 0:
        return paragraph(f"No other window reaches {which}.")
    return paragraph(f"Other windows reach {which} too and add their shares on top.")


def shape_lines(axes: Sequence[AxisTaps]) -> list[str]:
    """Which shape the gradient has."""
    inputs, outputs = by([axis.size for axis in axes]), by([axis.outputs for axis in axes])
    told = f"The gradient has the shape of the input ({inputs})"
    return paragraph(told + (f", not of the output ({outputs})." if inputs != outputs else "."))


def _selection(view: View, worked: Selected, shares: Array) -> list[str]:
    cell, others = worked.cell or 0, view.region.size - 1
    copied, product, gift = "a copy", "mask * g", "all of g"
    if view.spec.mode is Mode.LP:
        copied, product, gift = "the magnitude", "mask * g * sign(x)", str(shares[cell])
    told = f"The output is {copied} of one cell. The mask is 1 there and 0 elsewhere:"
    where = unbroken(place(view.axes, view.tap(cell)))
    rest = f"; the other {others} cells receive 0" if others > 1 else ""
    rest = "; the other cell receives 0" if others == 1 else rest
    lines = [
        *paragraph(told),
        "",
        *grid(view, worked, lambda other: "01"[other == cell]),
        "",
        *paragraph(f"{where} receives {gift}{rest}.", f"{product}: "),
    ]
    if worked.equals > 1:
        lines += paragraph('Of equal cells the first alone receives it (tie policy "first").')
    return lines


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
