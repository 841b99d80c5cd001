"""The number of outputs along each axis, with the numbers in the formula."""

from __future__ import annotations

from collections.abc import Sequence

from pooling_client.explain._axes import AxisTaps
from pooling_client.explain._text import INDENT
from pooling_engine import NamedPadding, PoolSpec

_SAME = (NamedPadding.SAME_UPPER, NamedPadding.SAME_LOWER)


def size_lines(axes: Sequence[AxisTaps], spec: PoolSpec) -> list[str]:
    """The formula, then for each axis what it gives."""
    is_dilated = any(axis.window.dilation > 1 for axis in axes)
    lines = [INDENT + line for line in _formulas(spec, is_dilated)] + [""]
    width = max(len(axis.names) for axis in axes)
    for axis in axes:
        steps = _steps(axis, spec, is_dilated)
        labels = [f"{axis.names}:", *[""] * (len(steps) - 1)]
        lines += [
            f"{INDENT}{label:>{width + 1}} {step}"
            for label, step in zip(labels, steps, strict=True)
        ]
    return lines


def _formulas(spec: PoolSpec, is_dilated: bool) -> list[str]:
    extent = "e" if is_dilated else "kernel"
    lines = ["e = (kernel - 1) * dilation + 1, from the first tap to the last"] * is_dilated
    if spec.padding in _SAME:
        side = "after" if spec.padding is NamedPadding.SAME_UPPER else "before"
        return [
            *lines,
            "outputs = ceil(size / stride)",
            f"padding = max(0, (outputs - 1) * stride + {extent} - size), split in two halves;",
            f'{" " * 10}of an odd number the larger half goes {side} ("{spec.padding}")',
        ]
    rounding = "ceil" if spec.ceil_mode else "floor"
    if spec.padding is NamedPadding.VALID:
        lines.append('padding "valid" is none: every window is inside the input')
    return [
        *lines,
        f"outputs = {rounding}((size + pad before + pad after - {extent}) / stride) + 1",
    ]


def _steps(axis: AxisTaps, spec: PoolSpec, is_dilated: bool) -> list[str]:
    size, w = axis.size, axis.window
    extent = [f"e = ({w.kernel} - 1) * {w.dilation} + 1 = {w.extent}"] * is_dilated
    if spec.padding in _SAME:
        total = w.padding_before + w.padding_after
        return [
            *extent,
            f"ceil({size} / {w.stride}) = {axis.outputs}",
            f"padding max(0, ({axis.outputs} - 1) * {w.stride} + {w.extent} - {size}) = {total}: "
            f"{w.padding_before} before, {w.padding_after} after",
        ]
    before, after = w.padding_before, w.padding_after
    room = size + before + after - w.extent
    rounding, outputs = "floor", room // w.stride + 1
    if spec.ceil_mode:
        rounding, outputs = "ceil", -(-room // w.stride) + 1
    formula = (
        f"{rounding}(({size} + {before} + {after} - {w.extent}) / {w.stride}) + 1 "
        f"= {rounding}({room} / {w.stride}) + 1 = {outputs}"
    )
    return [*extent, formula, *_correction(axis, outputs)]


def _correction(axis: AxisTaps, outputs: int) -> list[str]:
    """Why ceil mode has one output fewer than the formula gives, if so."""
    if outputs == axis.outputs:
        return []
    w = axis.window
    start = (outputs - 1) * w.stride - w.padding_before
    return [
        f"but the last would start at ({outputs} - 1) * {w.stride} - {w.padding_before} = "
        f"{start}, past the last",
        f"element, {axis.size - 1}: it is dropped, and {axis.outputs} remain",
    ]
