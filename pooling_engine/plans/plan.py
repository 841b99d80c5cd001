"""`PoolPlan`: a spec resolved to integers. Backends read plans and never validate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from pooling_engine.dtypes import FLOATS
from pooling_engine.plans.geometry import AdaptiveAxis, Axis
from pooling_engine.specs.enums import (
    SELECTING_MODES,
    SUMMING_MODES,
    DivisorRule,
    IndexFormat,
    Mode,
    NanPolicy,
    TiePolicy,
)

_INDEX_TYPES = tuple(np.dtype(name) for name in ("uint8", "uint16", "uint32", "uint64"))
_POSITION_TYPE = np.dtype(np.int64)
MAX_INDEXED_TAPS = 2**32 - 1  # uint64 is used only within the engine


class PlannedAxis(NamedTuple):
    """Windows along one spatial axis, resolved; all sizes in elements.

    Attributes:
        size: size of the input.
        outputs: size of the output.
        kernel: number of taps of a window, or of the largest window if they differ.
        stride: step from window to window; 0 if it varies.
        dilation: step from tap to tap.
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
    """A spec resolved for one shape and element type: all that a backend needs, in integers.

    Attributes:
        mode: operation on the elements of a window.
        dtype: element type of the input and of gradients.
        input_shape: shape of the forward input, in the caller's layout.
        output_shape: shape of the output, in the same layout.
        axes: axes for backends, outermost first: the spatial ones, or one for a whole plane.
        spatial_axes: spatial axes, outermost first, with the windows of the spec.
        outer: product of the axes before the spatial ones (N * C, or N).
        inner: product of the axes after them (1, or C).
        norm_p: the p of mode LP.
        count_include_pad: whether padding counts in the divisor of mode AVERAGE.
        divisor_override: divisor that replaces the count, or None.
        taps: number of taps of a window, or of the largest window if they differ.
        sizes: sizes of the spatial axes of the input.
        is_global: whether `axes` is one axis of all positions of a plane, with one window: for
            global windows, and for sums whose window spans the plane.
        tie_policy: distribution of the gradient among tied elements.
        nan_policy: treatment of NaNs by MAX and MIN.
    """

    mode: Mode
    dtype: np.dtype[Any]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    axes: tuple[Axis, ...]
    spatial_axes: tuple[Axis, ...]
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
        """Shape of the input for backends: (outer, D1..Dn, inner)."""
        return (self.outer, *(axis.size for axis in self.axes), self.inner)

    @cached_property
    def output_block_shape(self) -> tuple[int, ...]:
        """Shape of the output for backends: (outer, O1..On, inner)."""
        return (self.outer, *(axis.outputs for axis in self.axes), self.inner)

    @cached_property
    def input_bytes(self) -> int:
        """Size of the input, and of its gradient, in bytes."""
        return math.prod(self.input_shape) * self.dtype.itemsize

    @cached_property
    def output_bytes(self) -> int:
        """Size of the output in bytes."""
        return math.prod(self.output_shape) * self.output_dtype.itemsize

    @cached_property
    def is_float(self) -> bool:
        """True for floating-point elements, which have gradients."""
        return self.dtype in FLOATS

    @cached_property
    def output_dtype(self) -> np.dtype[Any]:
        """Element type of the output: the input's, or a wider one for sums of integers."""
        if self.is_float or self.selects:
            return self.dtype
        if self.mode is Mode.SUM:
            return np.dtype(np.int64)
        return np.dtype(np.float64 if self.dtype == np.int64 else np.float32)

    @cached_property
    def tap_visits(self) -> int:
        """Amount of work: outputs times taps, added up over the spatial axes."""
        return math.prod(self.output_shape) * sum(axis.reach for axis in self.axes)

    @cached_property
    def index_dtype(self) -> np.dtype[Any]:
        """Element type of window indices: the smallest with a spare value for "none"."""
        return next(dtype for dtype in _INDEX_TYPES if self.taps <= np.iinfo(dtype).max)

    def index_dtype_of(self, index_format: IndexFormat) -> np.dtype[Any]:
        """Return the element type of indices in a format."""
        return self.index_dtype if index_format is IndexFormat.WINDOW else _POSITION_TYPE

    def index_bytes(self, index_format: IndexFormat) -> int:
        """Return the size of the indices in a format, in bytes."""
        return math.prod(self.output_shape) * self.index_dtype_of(index_format).itemsize

    @cached_property
    def selects(self) -> bool:
        """True if the mode selects one element of each window, and therefore has indices."""
        return self.mode in SELECTING_MODES

    @property
    def divisor_rule(self) -> DivisorRule | None:
        """Divisor of the sum, or None for modes that do not divide."""
        if self.mode is not Mode.AVERAGE:
            return None
        if self.divisor_override is not None:
            return DivisorRule.OVERRIDE
        return DivisorRule.PADDED_TAPS if self.count_include_pad else DivisorRule.VALID_TAPS

    @property
    def planned_axes(self) -> tuple[PlannedAxis, ...]:
        """Windows along each spatial axis, with the padding in effect."""
        return tuple(map(_planned, self.spatial_axes))

    def scans(self, axis: Axis) -> bool:
        """Return whether the windows along an axis are summed by a scan of blocks."""
        return axis.is_scanned and self.mode in SUMMING_MODES

    @cached_property
    def shares_ties(self) -> bool:
        """True if the backward pass needs the input to find all tied elements."""
        return self.selects and self.tie_policy is not TiePolicy.FIRST
