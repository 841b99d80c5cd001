"""What to do: a spec, a shape and an element type resolved to integers, and cached.

Backends read plans and never validate.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pooling_engine.dtypes import FLOAT_NAMES, FLOATS, INTEGERS, LEGAL_NAMES
from pooling_engine.enums import DivisorRule, IndexFormat, Layout, Mode, NanPolicy, TiePolicy
from pooling_engine.errors import (
    InvalidTensorError,
    TensorTooLargeError,
    UnsupportedError,
)
from pooling_engine.geometry import (
    AdaptiveAxis,
    Axis,
    SlidingAxis,
    resolve_adaptive,
    resolve_sliding,
)
from pooling_engine.options import MAX_SPATIAL_AXES
from pooling_engine.spec import SELECTING_MODES, PoolSpec, Window

_INDEX_TYPES = tuple(np.dtype(name) for name in ("uint8", "uint16", "uint32", "uint64"))
MAX_INDEXED_TAPS = 2**32 - 1  # uint64 numbers more, but only within the engine
_SHAPE, _DTYPE = "the shape", "the element type"  # stand in for the arguments that gave them
_MAX_BYTES = 2**63 - 1


class PlannedAxis(NamedTuple):
    """The windows along one spatial axis, resolved; all sizes in elements.

    Attributes:
        size: of the input.
        outputs: the size of the output.
        kernel: the taps of a window; of the largest, where they differ.
        stride: the step from window to window; 0 where it differs.
        dilation: the step from tap to tap.
        padding_before: positions added before the first element.
        padding_after: positions added after the last element.
    """

    size: int
    outputs: int
    kernel: int
    stride: int
    dilation: int = 1
    padding_before: int = 0
    padding_after: int = 0


def _planned(axis: Axis) -> PlannedAxis:
    if isinstance(axis, AdaptiveAxis):
        return PlannedAxis(axis.size, axis.outputs, axis.kernel, 0)
    w = axis.window
    pads = (w.padding_before, w.padding_after)
    return PlannedAxis(axis.size, axis.outputs, w.kernel, w.stride, w.dilation, *pads)


@dataclass(frozen=True, eq=False)
class PoolPlan:
    """Everything a backend needs to know about one call, in integers.

    Attributes:
        mode: what is computed.
        dtype: the element type of the input and of gradients.
        input_shape: the shape of the forward input, in the caller's layout.
        output_shape: the shape of the output, in the same layout.
        axes: the spatial axes, outermost first.
        outer: the product of the axes before the spatial ones (N * C, or N).
        inner: the product of the axes after them (1, or C).
        norm_p: the p of mode LP.
        count_include_pad: whether padded taps count in the divisor of mode AVERAGE.
        divisor_override: the divisor in place of that count, or None.
        taps: the number of taps of one window; of the largest, where they differ.
        sizes: the sizes of the spatial axes of the input.
        is_global: whether one window spans the whole plane, which is then one axis here.
        tie_policy: who receives the gradient of tied taps.
        nan_policy: what a NaN does to an extreme.
    """

    mode: Mode
    dtype: np.dtype[Any]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    axes: tuple[Axis, ...]
    outer: int
    inner: int
    norm_p: float
    count_include_pad: bool
    divisor_override: float | None
    taps: int
    sizes: tuple[int, ...]
    is_global: bool
    tie_policy: TiePolicy
    nan_policy: NanPolicy

    @cached_property
    def input_block_shape(self) -> tuple[int, ...]:
        """The input's shape as backends see it: (outer, D1..Dn, inner)."""
        return (self.outer, *(axis.size for axis in self.axes), self.inner)

    @cached_property
    def output_block_shape(self) -> tuple[int, ...]:
        """The output's shape as backends see it: (outer, O1..On, inner)."""
        return (self.outer, *(axis.outputs for axis in self.axes), self.inner)

    @cached_property
    def input_bytes(self) -> int:
        """The size of the input, and of its gradient, in bytes."""
        return math.prod(self.input_shape) * self.dtype.itemsize

    @cached_property
    def output_bytes(self) -> int:
        """The size of the output in bytes."""
        return math.prod(self.output_shape) * self.output_dtype.itemsize

    @cached_property
    def output_dtype(self) -> np.dtype[Any]:
        """The element type of the output: the input's, but wider for sums of integers."""
        if self.dtype in FLOATS or self.selects:
            return self.dtype
        if self.mode is Mode.SUM:
            return np.dtype(np.int64)
        return np.dtype(np.float64 if self.dtype == np.int64 else np.float32)

    @cached_property
    def tap_visits(self) -> int:
        """How many taps are visited in all, each spatial axis pooled on its own."""
        return math.prod(self.output_shape) * sum(axis.reach for axis in self.axes)

    @cached_property
    def index_dtype(self) -> np.dtype[Any]:
        """The element type of window indices: the smallest with a value to spare for "none"."""
        return next(dtype for dtype in _INDEX_TYPES if self.taps <= np.iinfo(dtype).max)

    def index_bytes(self, index_format: IndexFormat) -> int:
        """The size of the indices in a format, in bytes."""
        is_window = index_format is IndexFormat.WINDOW
        itemsize = self.index_dtype.itemsize if is_window else np.dtype(np.int64).itemsize
        return math.prod(self.output_shape) * itemsize

    @cached_property
    def selects(self) -> bool:
        """Whether the mode selects one tap of each window, and so has indices."""
        return self.mode in SELECTING_MODES

    @property
    def divisor_rule(self) -> DivisorRule | None:
        """What the sum is divided by, or None where the mode does not divide."""
        if self.mode is not Mode.AVERAGE:
            return None
        if self.divisor_override is not None:
            return DivisorRule.OVERRIDE
        return DivisorRule.PADDED_TAPS if self.count_include_pad else DivisorRule.VALID_TAPS

    @property
    def planned_axes(self) -> tuple[PlannedAxis, ...]:
        """The windows along each spatial axis, resolved."""
        if self.is_global:
            return tuple(PlannedAxis(size, 1, size, size) for size in self.sizes)
        return tuple(_planned(axis) for axis in self.axes)

    @property
    def shares_ties(self) -> bool:
        """Whether the backward pass needs the input to find all tied taps."""
        return self.selects and self.tie_policy is not TiePolicy.FIRST

    @cached_property
    def divisors(self) -> tuple[NDArray[np.int64], ...]:
        """The divisor of mode AVERAGE, factored over the spatial axes; at least 1."""
        if self.count_include_pad:
            return tuple(np.maximum(1, axis.counts_with_padding()) for axis in self.axes)
        limits = [axis.tap_limits() for axis in self.axes]
        return tuple(np.maximum(1, stop - first) for first, stop in limits)


def make_plan(
    spec: PoolSpec,
    shape: Sequence[int],
    dtype: Any,
    *,
    shape_field: str = "input",
    dtype_field: str = "input",
) -> PoolPlan:
    """Resolves `spec` for an input of `shape` and `dtype`; the result is cached.

    Args:
        shape_field: the argument that gave the shape, for what is wrong with it.
        dtype_field: the argument that gave the element type.

    Raises:
        InvalidSpecError: the windows do not fit the shape.
        InvalidTensorError: the shape or the element type is illegal.
        UnsupportedError: legal, but not built yet.
    """
    try:
        return _cached_plan(spec, as_shape(shape, _SHAPE), np.dtype(dtype))
    except (InvalidTensorError, UnsupportedError, TensorTooLargeError) as error:
        fields = {_SHAPE: shape_field, _DTYPE: dtype_field}
        if error.field not in fields:
            raise
        field = fields[error.field]
        raise type(error)(f"{field}: {error}", field=field) from None


def as_shape(shape: Sequence[int], field: str) -> tuple[int, ...]:
    """The sizes as a tuple of integers.

    Raises:
        InvalidTensorError: it is no sequence of integers.
    """
    try:
        return tuple(map(operator.index, shape))
    except TypeError:
        raise InvalidTensorError(
            f"the shape is {shape!r}; it must be a sequence of integers", field=field
        ) from None


@lru_cache(maxsize=512)
def _cached_plan(spec: PoolSpec, shape: tuple[int, ...], dtype: np.dtype[Any]) -> PoolPlan:
    _refuse_dtype(dtype, spec.mode)
    _refuse_shape(shape)
    channels_last = spec.layout is Layout.CHANNELS_LAST
    spatial = shape[1:-1] if channels_last else shape[2:]
    axes = _resolve_axes(spec, spatial)
    outputs = (1,) * len(spatial) if spec.global_window else tuple(a.outputs for a in axes)
    output_shape = (shape[0], *outputs, shape[-1]) if channels_last else (*shape[:2], *outputs)
    plan = PoolPlan(
        mode=spec.mode,
        dtype=dtype,
        input_shape=shape,
        output_shape=output_shape,
        axes=axes,
        outer=shape[0] if channels_last else shape[0] * shape[1],
        inner=shape[-1] if channels_last else 1,
        norm_p=spec.norm_p,
        count_include_pad=spec.count_include_pad,
        divisor_override=spec.divisor_override,
        taps=math.prod(axis.kernel for axis in axes),
        sizes=spatial,
        is_global=spec.global_window,
        tie_policy=spec.tie_policy,
        nan_policy=spec.nan_policy,
    )
    if max(plan.input_bytes, plan.output_bytes) > _MAX_BYTES:
        raise TensorTooLargeError(
            f"an input of shape {shape} gives an output of shape {output_shape}; "
            "neither may exceed 2^63 - 1 bytes",
            field=_SHAPE,
        )
    return plan


def _resolve_axes(spec: PoolSpec, sizes: tuple[int, ...]) -> tuple[Axis, ...]:
    if spec.global_window:
        size = math.prod(sizes)
        return (SlidingAxis(size, Window(size, size), 1),)
    if spec.adaptive_output is not None:
        outputs = spec.adaptive_outputs(len(sizes))
        return tuple(
            resolve_adaptive(number, size, count)
            for number, (size, count) in enumerate(zip(sizes, outputs, strict=True))
        )
    windows = spec.windows(len(sizes))
    return tuple(
        resolve_sliding(number, size, window, spec.padding, spec.ceil_mode)
        for number, (size, window) in enumerate(zip(sizes, windows, strict=True))
    )


def _refuse_dtype(dtype: np.dtype[Any], mode: Mode) -> None:
    if dtype in FLOATS or (dtype in INTEGERS and mode is not Mode.LP):
        return
    if dtype in INTEGERS:
        raise InvalidTensorError(
            f'the element type is {dtype.name}; mode "lp" takes {FLOAT_NAMES}',
            field=_DTYPE,
        )
    raise InvalidTensorError(
        f"the element type is {dtype.name}; it must be one of {LEGAL_NAMES}", field=_DTYPE
    )


def _refuse_shape(shape: tuple[int, ...]) -> None:
    if not 3 <= len(shape) <= 2 + MAX_SPATIAL_AXES:
        raise InvalidTensorError(
            f"the shape {shape} has {len(shape)} axes; it must have N, C and "
            f"1 to {MAX_SPATIAL_AXES} spatial axes",
            field=_SHAPE,
        )
    if shape[0] < 0 or min(shape[1:]) < 1:
        raise InvalidTensorError(
            f"the shape is {shape}; N may be zero, every other size must be at least 1",
            field=_SHAPE,
        )
