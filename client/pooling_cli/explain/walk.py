"""The whole walk: heading, region, forward, backward, output size, check."""

from __future__ import annotations

import math
from itertools import chain

from pooling_cli.explain.arithmetic import work_out
from pooling_cli.explain.axes import AxisTaps
from pooling_cli.explain.backward import backward_lines
from pooling_cli.explain.check import Answer, ask_engine, refuse_what_the_engine_refuses
from pooling_cli.explain.forward import forward_lines, output_name, region_lines
from pooling_cli.explain.overlap import overlap_lines, shape_lines
from pooling_cli.explain.overview import mode_name, overview_lines
from pooling_cli.explain.rounding import format_of
from pooling_cli.explain.sizes import size_lines
from pooling_cli.explain.text import count, heading, paragraph, section, unbroken
from pooling_cli.explain.window import Array, View, coordinate_names, look_at
from pooling_cli.explain.worked import Normed, Selected, Summed, Worked
from pooling_engine import Mode, PoolSpec
from pooling_engine.dtypes import FLOATS


def explain_window(
    x: Array, spec: PoolSpec, at: tuple[int, ...], output_gradient: Array | None = None
) -> str:
    """The arithmetic of one window, forward and backward, step by step.

    Args:
        x: the tensor, of shape (N, C, D1..Dn) or, channels last, (N, D1..Dn, C).
        spec: what to compute.
        at: which output to look at, an index into the output in the same layout.
        output_gradient: the gradient of the output, of its shape and type; None: 1.

    Returns:
        The text, in lines of at most about 80 characters.

    Raises:
        InvalidSpecError: the spec does not fit the tensor, or `at` is no index of the output.
        InvalidTensorError: the tensor or the gradient has a wrong shape or element type.
        UnsupportedError: legal, but not built.
        InternalError: the explanation and the engine disagree.
    """
    view = look_at(x, spec, at, output_gradient)
    refuse_what_the_engine_refuses(x, view)
    worked = work_out(view)
    answer = ask_engine(view, worked)
    forward, sizes = forward_lines(view, worked, answer.output), size_lines(view.axes, spec)
    parts = [("The region", region_lines(view, worked)), ("Forward", forward)]
    if view.has_gradient:
        parts.append(("Backward", _backward(view, worked, answer)))
    else:
        forward += ["", *paragraph("Integers have no gradient, so there is no backward step.")]
    parts.append(("Output size", sizes))
    numbered = (section(f"{i}. {title}", lines) for i, (title, lines) in enumerate(parts, 1))
    lines = [*_title(view), *chain.from_iterable(numbered), "", *_check_lines(view, worked)]
    return "\n".join(lines)


def _backward(view: View, worked: Selected | Summed | Normed, answer: Answer) -> list[str]:
    return [
        *backward_lines(view, worked, answer.shares),
        "",
        *overlap_lines(view, worked),
        *shape_lines(view.axes),
    ]


def _title(view: View) -> list[str]:
    spec, inside = view.spec, view.region.size
    names = coordinate_names(spec, len(view.axes))
    numbers = zip(names, view.at, strict=True)
    where = ", ".join(unbroken(f"{name} {number}") for name, number in numbers)
    taps = "; ".join(unbroken(_positions(axis)) for axis in view.axes)
    on_elements = "all" if inside == view.taps else f"{inside} of them" if inside else "none"
    return [
        *heading(f"{mode_name(spec)}, one window step by step"),
        *overview_lines(view.plan, spec, view.parameters, view.axes),
        *paragraph(f"{output_name(view)}: {where}", "here     "),
        *paragraph(f"{count(view.taps, 'tap')}, {on_elements} on elements: {taps}", "taps     "),
    ]


def _positions(axis: AxisTaps) -> str:
    """Where the taps are along an axis, such as "rows 2 to 4" or "rows 1, 3, 5"."""
    taps = axis.kernel
    first, last = axis.position(0), axis.position(taps - 1)
    if taps == 1:
        return f"{axis.name} {first}"
    if axis.dilation == 1 and taps > 2:
        return f"{axis.names} {first} to {last}"
    listed = [str(axis.position(tap)) for tap in range(min(taps, 6))]
    if taps > 6:
        listed = [*listed[:3], "...", str(last)]
    return f"{axis.names} {', '.join(listed)}"


def _check_lines(view: View, worked: Worked) -> list[str]:
    """What was compared with the engine, and how closely."""
    compared = []
    if isinstance(worked, Selected) and view.spec.mode is not Mode.LP:
        compared = ["index"] if worked.cell is None else ["cell"]
    compared += ["output"] * math.isfinite(worked.output_slack)
    compared += ["gradient"] * (worked.shares is not None)
    dtype = view.parameters.output_dtype
    closeness = "exactly"
    if dtype in FLOATS and not isinstance(worked, Selected):
        closeness = f"to the rounding of {dtype.name} ({format_of(dtype).epsilon:.1e})"
    *first, last = compared
    same = f"{', '.join(first)} and {last}" if first else last
    return paragraph(f"Checked against the engine: same {same}, {closeness}.")
