"""From a spec to the windows along each axis (contract, sections 1 and 2).

Worked out from the spec, on purpose without the engine's plan, so that the explanation and
the engine can be held against each other.
"""

from __future__ import annotations

import math

from pooling_cli.explain.axes import AxisTaps, axis_names
from pooling_engine import NamedPadding, PoolSpec
from pooling_engine.specs.window import Window


def resolve_axes(
    spec: PoolSpec, sizes: tuple[int, ...], at: tuple[int, ...] | None = None
) -> tuple[AxisTaps, ...]:
    """The axes of planes of those sizes.

    Args:
        at: which output is looked at along each axis; None: the first.
    """
    count = len(sizes)
    axes = list(zip(axis_names(count), sizes, at or (0,) * count, strict=True))
    if spec.global_window:
        return tuple(_whole(name, size) for name, size, _ in axes)
    if spec.adaptive_output is not None:
        outputs = spec.adaptive_outputs(count)
        return tuple(_adaptive(*axis, total) for axis, total in zip(axes, outputs, strict=True))
    windows = spec.windows(count)
    return tuple(_sliding(*axis, window, spec) for axis, window in zip(axes, windows, strict=True))


def adaptive_window(size: int, outputs: int, output: int) -> range:
    """The elements of one of the windows that divide an axis among its outputs."""
    return range(output * size // outputs, -(-(output + 1) * size // outputs))


def _whole(name: str, size: int) -> AxisTaps:
    return AxisTaps(
        name=name, size=size, outputs=1, output=0, start=0, kernel=size, largest=size, stride=size
    )


def _adaptive(name: str, size: int, output: int, outputs: int) -> AxisTaps:
    window = adaptive_window(size, outputs, output)
    kinds = outputs // math.gcd(size, outputs)  # the windows repeat after so many
    return AxisTaps(
        name=name,
        size=size,
        outputs=outputs,
        output=output,
        start=window.start,
        kernel=len(window),
        largest=max(len(adaptive_window(size, outputs, kind)) for kind in range(kinds)),
        stride=0 if size % outputs else size // outputs,
    )


def _sliding(name: str, size: int, output: int, window: Window, spec: PoolSpec) -> AxisTaps:
    outputs, before, after = _outputs_and_padding(size, window, spec)
    return AxisTaps(
        name=name,
        size=size,
        outputs=outputs,
        output=output,
        start=output * window.stride - before,
        kernel=window.kernel,
        largest=window.kernel,
        stride=window.stride,
        dilation=window.dilation,
        padding_before=before,
        padding_after=after,
    )


def _outputs_and_padding(size: int, window: Window, spec: PoolSpec) -> tuple[int, int, int]:
    """How many outputs one axis has, and the padding before and after it."""
    s = window.stride
    if spec.padding in (NamedPadding.SAME_UPPER, NamedPadding.SAME_LOWER):
        outputs = -(-size // s)
        total = max(0, (outputs - 1) * s + window.extent - size)
        less, more = total // 2, total - total // 2
        pads = (less, more) if spec.padding is NamedPadding.SAME_UPPER else (more, less)
        return outputs, *pads
    before, after = window.padding_before, window.padding_after
    room = size + before + after - window.extent
    outputs = (-(-room // s) if spec.ceil_mode else room // s) + 1
    if spec.ceil_mode and (outputs - 1) * s >= size + before:
        outputs -= 1
    return outputs, before, after
