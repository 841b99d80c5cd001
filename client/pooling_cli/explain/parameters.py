"""The effective parameters of a spec: every default, name and type resolved."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from pooling_cli.explain.axes import AxisTaps
from pooling_cli.explain.resolve import resolve_axes
from pooling_engine import (
    DivisorRule,
    InternalError,
    Layout,
    Mode,
    PlannedAxis,
    PoolPlan,
    PoolSpec,
)
from pooling_engine.dtypes import FLOATS


@dataclass(frozen=True, slots=True)
class Parameters:
    """What the engine's plan says, too, under the same names.

    Attributes:
        output_shape: the shape of the output, in the layout of the input.
        output_dtype: its element type.
        planned_axes: the windows along each spatial axis.
        taps: those of a window, padded ones included; of the largest, where they differ.
        index_dtype: the element type of window indices.
        divisor_rule: what the sum of an average is divided by; None for other modes.
    """

    output_shape: tuple[int, ...]
    output_dtype: np.dtype[Any]
    planned_axes: tuple[PlannedAxis, ...]
    taps: int
    index_dtype: np.dtype[Any]
    divisor_rule: DivisorRule | None


def work_out_parameters(spec: PoolSpec, plan: PoolPlan) -> Parameters:
    """The effective parameters for the input of a plan, worked out apart from it.

    Raises:
        InternalError: the plan says otherwise.
    """
    shape, is_last = plan.input_shape, spec.layout is Layout.CHANNELS_LAST
    axes = resolve_axes(spec, shape[1:-1] if is_last else shape[2:])
    outputs = tuple(axis.outputs for axis in axes)
    taps = math.prod(axis.largest for axis in axes)
    parameters = Parameters(
        output_shape=(shape[0], *outputs, shape[-1]) if is_last else (*shape[:2], *outputs),
        output_dtype=_output_dtype(spec.mode, plan.dtype),
        planned_axes=tuple(map(_planned, axes)),
        taps=taps,
        index_dtype=_index_dtype(taps),
        divisor_rule=_divisor_rule(spec),
    )
    for field in fields(parameters):
        ours, engines = getattr(parameters, field.name), getattr(plan, field.name)
        if ours != engines:
            raise disagreement(f"the parameter {field.name}", ours, engines)
    return parameters


def disagreement(what: str, ours: object, engines: object) -> InternalError:
    """The refusal to explain what was worked out twice, and differently."""
    return InternalError(
        f"explain and the engine disagree on {what}: {ours} by the arithmetic of one window, "
        f"{engines} by the engine; one of them has a bug"
    )


def _planned(axis: AxisTaps) -> PlannedAxis:
    pads = (axis.padding_before, axis.padding_after)
    return PlannedAxis(axis.size, axis.outputs, axis.largest, axis.stride, axis.dilation, *pads)


def _output_dtype(mode: Mode, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type of the output: the input's, but of integers a sum or an average is wider."""
    if dtype in FLOATS or mode in (Mode.MAX, Mode.MIN):
        return dtype
    average = "float64" if dtype == np.int64 else "float32"
    return np.dtype("int64" if mode is Mode.SUM else average)


def _index_dtype(taps: int) -> np.dtype[Any]:
    """The smallest type whose top value is left for "none"."""
    bits = next(bits for bits in (8, 16, 32, 64) if taps < 2**bits)
    return np.dtype(f"uint{bits}")


def _divisor_rule(spec: PoolSpec) -> DivisorRule | None:
    if spec.mode is not Mode.AVERAGE:
        return None
    if spec.divisor_override is not None:
        return DivisorRule.OVERRIDE
    return DivisorRule.PADDED_TAPS if spec.count_include_pad else DivisorRule.VALID_TAPS
