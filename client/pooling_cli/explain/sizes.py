"""The number of outputs along each axis, with the numbers in the formula."""

from __future__ import annotations

from collections.abc import Sequence

from pooling_cli.explain.axes import AxisTaps
from pooling_cli.explain.resolve import adaptive_window
from pooling_cli.explain.text import INDENT, WIDTH
from pooling_engine import NamedPadding, PoolSpec

_MOST_WINDOWS = 6  # of one axis that are written out
_ROOM = WIDTH - len(INDENT) - len("positions: ")
_SAME = (NamedPadding.SAME_UPPER, NamedPadding.SAME_LOWER)


def size_lines(
    axes: Sequence[AxisTaps], spec: PoolSpec, *, of_every_window: bool = False
) -> list[str]:
    """The formula, then for each axis what it gives.

    Args:
        of_every_window: of adaptive windows, show not only the one that is looked at.
    """
    is_dilated = any(axis.dilation > 1 for axis in axes)
    lines = [INDENT + line for line in _formulas(spec, is_dilated)] + [""]
    width = max(len(axis.names) for axis in axes)
    for axis in axes:
        if spec.global_window:
            steps = [f"1 output, of elements 0 to {axis.size - 1}"]
        elif spec.adaptive_output is not None:
            shown = _shown(axis.outputs) if of_every_window else [axis.output]
            steps = _adaptive_steps(axis, shown)
        else:
            steps = _steps(axis, spec, is_dilated)
        labels = [f"{axis.names}:", *[""] * (len(steps) - 1)]
        lines += [
            f"{INDENT}{label:>{width + 1}} {step}"
            for label, step in zip(labels, steps, strict=True)
        ]
    return lines


def _formulas(spec: PoolSpec, is_dilated: bool) -> list[str]:
    if spec.global_window:
        return ["a global window has every element, so each axis has one output"]
    if spec.adaptive_output is not None:
        return [
            "the number of outputs is given; along an axis, window i is from element",
            "floor(i * size / outputs) up to, but without, ceil((i + 1) * size / outputs)",
        ]
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


def _shown(outputs: int) -> list[int | None]:
    """The first windows and the last; None stands for those left out."""
    if outputs <= _MOST_WINDOWS:
        return list(range(outputs))
    return [*range(_MOST_WINDOWS - 2), None, outputs - 1]


def _adaptive_steps(axis: AxisTaps, shown: Sequence[int | None]) -> list[str]:
    size, outputs = axis.size, axis.outputs
    steps = []
    for i in shown:
        if i is None:
            steps.append("...")
            continue
        window = adaptive_window(size, outputs, i)
        steps.append(
            f"window {i} from floor({i} * {size} / {outputs}) = {window.start} "
            f"up to ceil({i + 1} * {size} / {outputs}) = {window.stop}"
        )
    return steps


def _steps(axis: AxisTaps, spec: PoolSpec, is_dilated: bool) -> list[str]:
    size, w = axis.size, axis
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
    formula = f"{rounding}(({size} + {before} + {after} - {w.extent}) / {w.stride}) + 1"
    result = f"= {rounding}({room} / {w.stride}) + 1 = {outputs}"
    is_short = len(formula) + len(result) < _ROOM
    steps = [f"{formula} {result}"] if is_short else [formula, result]
    return [*extent, *steps, *_correction(axis, outputs)]


def _correction(axis: AxisTaps, outputs: int) -> list[str]:
    """Why ceil mode has one output fewer than the formula gives, if so."""
    if outputs == axis.outputs:
        return []
    w = axis
    start = (outputs - 1) * w.stride - w.padding_before
    return [
        f"but the last would start at ({outputs} - 1) * {w.stride} - {w.padding_before} = "
        f"{start}, past the last",
        f"element, {axis.size - 1}: it is dropped, and {axis.outputs} remain",
    ]
