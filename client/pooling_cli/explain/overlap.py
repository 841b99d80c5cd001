"""Which cells other windows reach too, and the shape of the gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pooling_cli.explain.axes import AxisTaps, unravel
from pooling_cli.explain.text import by, count, paragraph
from pooling_cli.explain.window import View
from pooling_cli.explain.worked import Selected, Worked


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
