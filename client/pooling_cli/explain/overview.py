"""The lines at the top: what goes in, the windows, what comes out, and by which rules."""

from __future__ import annotations

from collections.abc import Sequence

from pooling_cli.explain.axes import AxisTaps
from pooling_cli.explain.parameters import Parameters
from pooling_cli.explain.text import by, paragraph, plain
from pooling_engine import DivisorRule, Mode, NamedPadding, NanPolicy, PoolPlan, PoolSpec, TiePolicy
from pooling_engine.dtypes import FLOATS
from pooling_engine.plans.plan import MAX_INDEXED_TAPS

_TIES = {
    TiePolicy.FIRST: "the first of equal cells receives the gradient",
    TiePolicy.ALL: "each of equal cells receives the whole gradient",
    TiePolicy.SPLIT: "equal cells share the gradient in equal parts",
}
_NANS = {
    NanPolicy.PROPAGATE: "a NaN outranks every number",
    NanPolicy.IGNORE: "a NaN is skipped",
    NanPolicy.ERROR: "a NaN in any window is refused",
}


def mode_name(spec: PoolSpec) -> str:
    """What the mode is called in a heading."""
    name = f"{spec.mode.capitalize()} pooling"
    return f"{name} with p = {plain(spec.norm_p)}" if spec.mode is Mode.LP else name


def overview_lines(
    plan: PoolPlan, spec: PoolSpec, parameters: Parameters, axes: Sequence[AxisTaps]
) -> list[str]:
    """The input, the windows, the output; the divisor of an average, the indices of max, min."""
    layout = spec.layout.replace("_", " ")
    output = f"{parameters.output_shape} {parameters.output_dtype.name}"
    lines = [
        *paragraph(f"{plan.input_shape} {plan.dtype.name}, {layout}", "input    "),
        *paragraph(_windows(spec, axes), "windows  "),
        *paragraph(_padding(spec, axes), "padding  "),
        *paragraph(output, "output   "),
    ]
    if parameters.divisor_rule is not None:
        lines += paragraph(_divisor(spec, parameters.divisor_rule), "divisor  ")
    if spec.mode in (Mode.MAX, Mode.MIN):
        lines += paragraph(_indices(parameters), "indices  ")
        lines += _policies(spec) if plan.dtype in FLOATS else []
    return lines


def _windows(spec: PoolSpec, axes: Sequence[AxisTaps]) -> str:
    largest = by([axis.largest for axis in axes])
    if spec.global_window:
        return f"global: one window over everything, kernel {largest}"
    if spec.adaptive_output is not None:
        most = "up to " if any(axis.size % axis.outputs for axis in axes) else ""
        return f"adaptive: outputs {by([a.outputs for a in axes])}, kernel {most}{largest}"
    parts = [
        f"kernel {largest}",
        f"stride {by([axis.stride for axis in axes])}",
        f"dilation {by([axis.dilation for axis in axes])}",
    ]
    return ", ".join(parts + ["ceil mode"] * spec.ceil_mode)


def _padding(spec: PoolSpec, axes: Sequence[AxisTaps]) -> str:
    """The padding in numbers, after its name if it has one."""
    name = f'"{spec.padding}": ' if isinstance(spec.padding, NamedPadding) else ""
    pads = {pad for axis in axes for pad in (axis.padding_before, axis.padding_after)}
    if len(pads) == 1:
        (pad,) = pads
        return f"{name}{pad} on every side" if pad else f"{name}none"
    sides = (f"{a.names} {a.padding_before} before, {a.padding_after} after" for a in axes)
    return name + "; ".join(sides)


def _divisor(spec: PoolSpec, rule: DivisorRule) -> str:
    match rule:
        case DivisorRule.OVERRIDE:
            told = f"{plain(spec.divisor_override or 0)}, in place of the number of taps"
        case DivisorRule.VALID_TAPS:
            told = "the number of taps on elements"
        case DivisorRule.PADDED_TAPS:
            told = "the number of taps on elements or in the padding"
    return f'rule "{rule}": {told}'


def _indices(parameters: Parameters) -> str:
    dtype, taps = parameters.index_dtype, parameters.taps
    if taps > MAX_INDEXED_TAPS:
        return f"none: a window has {taps} taps, an index numbers {MAX_INDEXED_TAPS} at most"
    none = 2 ** (8 * dtype.itemsize) - 1
    return f'{dtype.name} in format "window", {none} for none; int64 in "plane" and "tensor"'


def _policies(spec: PoolSpec) -> list[str]:
    """Who of equals receives the gradient, and what a NaN does; integers have neither."""
    return [
        *paragraph(f'tie_policy "{spec.tie_policy}": {_TIES[spec.tie_policy]}', "ties     "),
        *paragraph(f'nan_policy "{spec.nan_policy}": {_NANS[spec.nan_policy]}', "NaNs     "),
    ]
