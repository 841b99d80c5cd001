"""The whole walk: heading, region, forward, backward, output size, check."""

from __future__ import annotations

import math

import numpy as np

from pooling_client.explain._arithmetic import Selected, Worked, work_out
from pooling_client.explain._axes import AxisTaps
from pooling_client.explain._backward import backward_lines, overlap_lines, shape_lines
from pooling_client.explain._check import ask_engine
from pooling_client.explain._forward import forward_lines, output_name, region_lines
from pooling_client.explain._sizes import size_lines
from pooling_client.explain._text import by, count, heading, paragraph, plain, section, unbroken
from pooling_client.explain._window import Array, View, coordinate_names, look_at
from pooling_engine import Mode, NamedPadding, PoolSpec


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
    worked = work_out(view)
    answer = ask_engine(view, worked)
    backward = [
        *backward_lines(view, worked, answer.shares),
        "",
        *overlap_lines(view, worked),
        *shape_lines(view.axes),
    ]
    return "\n".join(
        [
            *_title(view),
            *section("1. The region", region_lines(view, worked)),
            *section("2. Forward", forward_lines(view, worked, answer.output)),
            *section("3. Backward", backward),
            *section("4. Output size", size_lines(view.axes, spec)),
            "",
            *_check_lines(view, worked),
        ]
    )


def _title(view: View) -> list[str]:
    spec, inside = view.spec, view.region.size
    name = f"{spec.mode.capitalize()} pooling"
    if spec.mode is Mode.LP:
        name += f" with p = {plain(spec.norm_p)}"
    dtype, layout = view.region.dtype.name, spec.layout.replace("_", " ")
    names = coordinate_names(spec, len(view.axes))
    numbers = zip(names, view.at, strict=True)
    where = ", ".join(unbroken(f"{name} {number}") for name, number in numbers)
    taps = "; ".join(unbroken(_positions(axis)) for axis in view.axes)
    on_elements = "all" if inside == view.taps else f"{inside} of them" if inside else "none"
    return [
        *heading(f"{name}, one window step by step"),
        *paragraph(f"{view.input_shape} {dtype}, {layout}", "input    "),
        *paragraph(_window_text(view), "windows  "),
        *paragraph(f"{view.output_shape}; here {output_name(view)}: {where}", "output   "),
        *paragraph(f"{count(view.taps, 'tap')}, {on_elements} on elements: {taps}", "taps     "),
    ]


def _window_text(view: View) -> str:
    """The kernel and what else the spec says about the windows."""
    spec, windows = view.spec, [axis.window for axis in view.axes]
    parts = [
        f"kernel {by([w.kernel for w in windows])}",
        f"stride {by([w.stride for w in windows])}",
    ]
    if any(w.dilation > 1 for w in windows):
        parts.append(f"dilation {by([w.dilation for w in windows])}")
    pads = {(w.padding_before, w.padding_after) for w in windows}
    if isinstance(spec.padding, NamedPadding):
        parts.append(f'padding "{spec.padding}"')
    elif len(pads) == 1 and len(set(*pads)) == 1:
        parts += [f"padding {windows[0].padding_before}"] * (windows[0].padding_before > 0)
    else:
        pairs = ", ".join(f"({w.padding_before}, {w.padding_after})" for w in windows)
        parts.append(f"padding (before, after) {pairs}")
    return ", ".join(parts + ["ceil mode"] * spec.ceil_mode)


def _positions(axis: AxisTaps) -> str:
    """Where the taps are along an axis, such as "rows 2 to 4" or "rows 1, 3, 5"."""
    taps = axis.window.kernel
    first, last = axis.position(0), axis.position(taps - 1)
    if taps == 1:
        return f"{axis.name} {first}"
    if axis.window.dilation == 1 and taps > 2:
        return f"{axis.names} {first} to {last}"
    listed = [str(axis.position(tap)) for tap in range(min(taps, 6))]
    if taps > 6:
        listed = [*listed[:3], "...", str(last)]
    return f"{axis.names} {', '.join(listed)}"


def _check_lines(view: View, worked: Worked) -> list[str]:
    """What was compared with the engine, and how closely."""
    selects = isinstance(worked, Selected) and view.spec.mode is not Mode.LP
    compared = ["cell"] * (selects and view.region.size > 0)
    compared += ["output"] * math.isfinite(worked.output_slack)
    compared += ["gradient"] * (worked.shares is not None)
    limits = np.finfo(view.region.dtype)
    closeness = f"to the rounding of {limits.dtype} ({float(limits.eps):.1e})"
    if isinstance(worked, Selected):
        closeness = "exactly"
    *first, last = compared
    same = f"{', '.join(first)} and {last}" if first else last
    return paragraph(f"Checked against the engine: same {same}, {closeness}.")
