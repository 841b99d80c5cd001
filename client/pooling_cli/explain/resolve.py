"""Parameters of a spec: every default, name and size resolved, by the rules in pooling.proto.

Resolved from the spec alone, on purpose without the engine's plan, and then compared with it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pooling_cli.explain.spec_records import (
    AdaptiveWindow,
    Axis,
    Indices,
    OutputSize,
    Parameters,
    Windows,
)
from pooling_engine import (
    DivisorRule,
    InternalError,
    Layout,
    Mode,
    NamedPadding,
    PlannedAxis,
    PoolPlan,
    PoolSpec,
    Window,
)

_AXIS_NAMES = {1: ("position",), 2: ("row", "column"), 3: ("depth", "row", "column")}
_SAME = (NamedPadding.SAME_UPPER, NamedPadding.SAME_LOWER)
_MOST_TAPS = 2**32 - 1  # that an index can tell apart
_INTEGERS = "iu"  # kinds of NumPy's integer types


def axis_names(count: int) -> tuple[str, ...]:
    """Return the names of the spatial axes, outermost first."""
    leading = tuple(f"D{number}" for number in range(1, count - 1))
    return _AXIS_NAMES.get(count, (*leading, "row", "column"))


def coordinate_names(layout: str, count: int) -> tuple[str, ...]:
    """Return the names of an output's coordinates, in the order of the layout."""
    names = axis_names(count)
    return ("n", *names, "c") if layout == Layout.CHANNELS_LAST else ("n", "c", *names)


def resolve_axes(spec: PoolSpec, sizes: tuple[int, ...]) -> tuple[Axis, ...]:
    """Return the windows along each axis of a plane of those sizes."""
    named = list(zip(axis_names(len(sizes)), sizes, strict=True))
    if spec.global_window:
        return tuple(
            Axis(name=name, size=size, outputs=1, kernel=size, stride=size) for name, size in named
        )
    if spec.adaptive_output is not None:
        outputs = spec.adaptive_outputs(len(sizes))
        return tuple(_adaptive(*axis, total) for axis, total in zip(named, outputs, strict=True))
    windows = spec.windows(len(sizes))
    return tuple(_sliding(*axis, window, spec) for axis, window in zip(named, windows, strict=True))


def adaptive_elements(size: int, outputs: int, output: int) -> range:
    """Return the elements of one of the windows that divide an axis among its outputs."""
    return range(output * size // outputs, -(-(output + 1) * size // outputs))


def resolve_parameters(spec: PoolSpec, plan: PoolPlan) -> Parameters:
    """Return the parameters of a spec for the input of a plan.

    Raises:
        InternalError: the plan has other parameters.
    """
    axes = resolve_axes(spec, plan.sizes)
    taps = math.prod(axis.kernel for axis in axes)
    selects = spec.mode in (Mode.MAX, Mode.MIN)
    has_policies = selects and plan.dtype.kind not in _INTEGERS
    outputs = tuple(axis.outputs for axis in axes)
    n, first, last = plan.input_shape[0], plan.input_shape[1], plan.input_shape[-1]
    is_last = spec.layout is Layout.CHANNELS_LAST
    parameters = Parameters(
        mode=spec.mode.value,
        norm_p=spec.norm_p if spec.mode is Mode.LP else None,
        windows=_kind(spec),
        padding=spec.padding.value if isinstance(spec.padding, NamedPadding) else None,
        ceil_mode=spec.ceil_mode,
        layout=spec.layout.value,
        input_shape=plan.input_shape,
        input_dtype=plan.dtype.name,
        output_shape=(n, *outputs, last) if is_last else (n, first, *outputs),
        output_dtype=_output_dtype(spec.mode, plan.dtype),
        axes=axes,
        taps=taps,
        divisor_rule=_divisor_rule(spec),
        divisor_override=spec.divisor_override,
        indices=_indices(taps) if selects else None,
        tie_policy=spec.tie_policy.value if has_policies else None,
        nan_policy=spec.nan_policy.value if has_policies else None,
    )
    _compare(parameters, plan)
    return parameters


def output_sizes(
    spec: PoolSpec, axes: tuple[Axis, ...], at: tuple[int, ...] | None = None
) -> tuple[OutputSize, ...]:
    """Return how the number of outputs follows along each axis.

    Args:
        spec: the spec.
        axes: its axes.
        at: the output whose adaptive windows are listed; None: list the windows of all outputs.
    """
    numbers = [None] * len(axes) if at is None else at
    return tuple(_output_size(spec, axis, i) for axis, i in zip(axes, numbers, strict=True))


def disagreement(what: str, ours: object, engines: object) -> InternalError:
    """Return the error for a result that the explanation and the engine do not share."""
    return InternalError(
        f"explain and the engine disagree on {what}: {ours} by the arithmetic of one window, "
        f"{engines} by the engine; one of them has a bug"
    )


def _kind(spec: PoolSpec) -> Windows:
    if spec.global_window:
        return "global"
    return "sliding" if spec.adaptive_output is None else "adaptive"


def _adaptive(name: str, size: int, outputs: int) -> Axis:
    kinds = outputs // math.gcd(size, outputs)  # the sizes of windows repeat after so many
    kernel = max(len(adaptive_elements(size, outputs, kind)) for kind in range(kinds))
    stride = 0 if size % outputs else size // outputs
    return Axis(name=name, size=size, outputs=outputs, kernel=kernel, stride=stride)


def _sliding(name: str, size: int, window: Window, spec: PoolSpec) -> Axis:
    outputs, before, after = _outputs_and_padding(size, window, spec)
    return Axis(
        name=name,
        size=size,
        outputs=outputs,
        kernel=window.kernel,
        stride=window.stride,
        dilation=window.dilation,
        padding_before=before,
        padding_after=after,
    )


def _outputs_and_padding(size: int, window: Window, spec: PoolSpec) -> tuple[int, int, int]:
    """Return the number of outputs of one axis, and the padding before and after it."""
    s = window.stride
    if spec.padding in _SAME:
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


def _output_size(spec: PoolSpec, axis: Axis, at: int | None) -> OutputSize:
    name, outputs = axis.name, axis.outputs
    if spec.global_window:
        return OutputSize(axis=name, rule="global", outputs=outputs)
    if spec.adaptive_output is not None:
        listed = range(outputs) if at is None else (at,)
        windows = tuple(_adaptive_window(axis, output) for output in listed)
        return OutputSize(axis=name, rule="adaptive", outputs=outputs, windows=windows)
    padding = axis.padding_before + axis.padding_after
    if spec.padding in _SAME:
        return OutputSize(axis=name, rule="same", outputs=outputs, padding=padding)
    room = axis.size + padding - axis.extent
    by_formula = (-(-room // axis.stride) if spec.ceil_mode else room // axis.stride) + 1
    start = (by_formula - 1) * axis.stride - axis.padding_before
    return OutputSize(
        axis=name,
        rule="ceil" if spec.ceil_mode else "floor",
        outputs=outputs,
        room=room,
        by_formula=by_formula,
        dropped_start=start if by_formula != outputs else None,
    )


def _adaptive_window(axis: Axis, output: int) -> AdaptiveWindow:
    elements = adaptive_elements(axis.size, axis.outputs, output)
    return AdaptiveWindow(output=output, start=elements.start, stop=elements.stop)


def _output_dtype(mode: Mode, dtype: np.dtype[Any]) -> str:
    """Return the input's type, or a wider one for sums and averages of integers."""
    if dtype.kind not in _INTEGERS or mode in (Mode.MAX, Mode.MIN):
        return dtype.name
    average = "float64" if dtype == np.int64 else "float32"
    return "int64" if mode is Mode.SUM else average


def _index_bits(taps: int) -> int:
    """Return the bits of the smallest type with a value left for "none"."""
    return next(bits for bits in (8, 16, 32, 64) if taps < 2**bits)


def _indices(taps: int) -> Indices:
    if taps > _MOST_TAPS:
        return Indices(dtype=None, none=None, most_taps=_MOST_TAPS)
    bits = _index_bits(taps)
    return Indices(dtype=f"uint{bits}", none=2**bits - 1, most_taps=_MOST_TAPS)


def _divisor_rule(spec: PoolSpec) -> str | None:
    if spec.mode is not Mode.AVERAGE:
        return None
    if spec.divisor_override is not None:
        return DivisorRule.OVERRIDE.value
    rule = DivisorRule.PADDED_TAPS if spec.count_include_pad else DivisorRule.VALID_TAPS
    return rule.value


def _compare(parameters: Parameters, plan: PoolPlan) -> None:
    """Compare the parameters with those of the plan, which has the same names for them."""
    resolved = {
        "output_shape": parameters.output_shape,
        "output_dtype": np.dtype(parameters.output_dtype),
        "planned_axes": tuple(map(_planned, parameters.axes)),
        "taps": parameters.taps,
        "index_dtype": np.dtype(f"uint{_index_bits(parameters.taps)}"),
        "divisor_rule": parameters.divisor_rule,
    }
    for name, ours in resolved.items():
        if ours != (engines := getattr(plan, name)):
            raise disagreement(f"the parameter {name}", ours, engines)


def _planned(axis: Axis) -> PlannedAxis:
    pads = (axis.padding_before, axis.padding_after)
    return PlannedAxis(axis.size, axis.outputs, axis.kernel, axis.stride, axis.dilation, *pads)
