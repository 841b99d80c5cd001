"""MAX and MIN (and LP with p = inf): the selected element, its index, its gradient.

`np.maximum` computes the values. It is fast, but does not define which of two zeros or of several
NaNs it returns. If that matters, the selected tap is searched and its element is copied.
"""

from __future__ import annotations

import functools
import math
from functools import lru_cache

import numpy as np

from pooling_engine.backends.numpy_backend.block import Block
from pooling_engine.backends.numpy_backend.passes import (
    Array,
    fold,
    fold_flat,
    reduced,
    scratch,
)
from pooling_engine.backends.numpy_backend.sums import make_canonical
from pooling_engine.backends.rules import empty_window_extreme, reject_nan
from pooling_engine.dtypes import INTEGERS, store
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import Mode, NanPolicy

_TABLE_TAPS = 65_536  # windows of at most this size have a table of tap offsets


def select_forward(
    plan: PoolPlan, block: Block, x: Array, output: Array, indices: Array | None
) -> None:
    """Write the selected element of each window and, if given, its window index."""
    values = as_comparable(plan, x)
    if indices is None and block.flat is not None:
        is_output = output.dtype == values.dtype
        extremes = output if is_output else _extreme(output, values, len(block.passes) - 1)
        fold_flat(combine_of(plan), values, extremes, block.flat)
        stages = []
    else:
        stages = extremes_by_axis(plan, block, values, output)
        extremes = stages[-1]
    if extremes is not output:
        store(output, extremes)
    has_nan, has_zeros_of_both_signs = _special_values(values, extremes)
    if has_nan:
        reject_nan(plan)
    is_ambiguous = has_nan or has_zeros_of_both_signs
    if indices is None and not is_ambiguous:
        return
    taps = scratch("indices", output.shape, plan.index_dtype) if indices is None else indices
    stages = stages or extremes_by_axis(plan, block, values, output)
    _first_taps(plan, block, [values, *stages], taps, has_nan)
    if is_ambiguous:
        _copy_selected(plan, block, x, output, taps)


def select_backward(plan: PoolPlan, block: Block, dy: Array, indices: Array, dx: Array) -> None:
    """Add the gradient of each window to its selected element, in float64, in window order."""
    cells = _cells(plan, block, indices).reshape(-1)
    weights = scratch("weights", dy.shape, np.float64)
    np.copyto(weights, dy)
    weights = weights.reshape(-1)
    is_selected = indices.reshape(-1) != np.iinfo(indices.dtype).max
    if block.inputs != (0, plan.axes[0].size):
        is_selected &= (cells >= 0) & (cells < dx.size)
    if not is_selected.all():
        cells, weights = cells[is_selected], weights[is_selected]
    total = np.bincount(cells, weights=weights, minlength=dx.size)
    store(dx, total.reshape(dx.shape))
    make_canonical(dx)


def as_comparable(plan: PoolPlan, x: Array) -> Array:
    """Return the block in a type that NumPy compares fast: 16-bit floats become float32.

    If NaNs are ignored, signalling NaNs become quiet: `np.fmax` would select a signalling one.
    """
    ignores = plan.nan_policy is NanPolicy.IGNORE
    if x.dtype in INTEGERS or (x.dtype.itemsize > 2 and not ignores):
        return x
    values = scratch("values", x.shape, np.float32 if x.dtype.itemsize == 2 else x.dtype)
    np.copyto(values, x)
    if ignores:
        with np.errstate(invalid="ignore"):
            values *= 1
    return values


def combine_of(plan: PoolPlan) -> np.ufunc:
    """Return the function that selects one of two elements, with NaNs as the policy says."""
    if plan.nan_policy is NanPolicy.IGNORE:
        return np.fmin if plan.mode is Mode.MIN else np.fmax
    return np.minimum if plan.mode is Mode.MIN else np.maximum


def extremes_by_axis(plan: PoolPlan, block: Block, values: Array, output: Array) -> list[Array]:
    """Return the extremes along the first spatial axis, the first two, ..., all axes."""
    combine, empty = combine_of(plan), empty_window_extreme(plan)
    if plan.nan_policy is NanPolicy.IGNORE and plan.dtype not in INTEGERS:
        empty = np.nan  # the initial value of a window; it must never be selected
    stages: list[Array] = []
    source = values
    for axis, steps in enumerate(block.passes):
        is_last = axis == len(block.passes) - 1
        is_output = is_last and output.dtype == values.dtype
        target = output if is_output else _extreme(output, values, axis)
        fold(combine, source, target, steps, empty)
        stages.append(target)
        source = target
    if plan.nan_policy is NanPolicy.IGNORE:
        _fill_empty_windows(plan, block, source, empty_window_extreme(plan))
    return stages


def _extreme(output: Array, values: Array, axis: int) -> Array:
    """Return scratch memory for the extremes along the spatial axes up to `axis`."""
    shape = output.shape[: axis + 2] + values.shape[axis + 2 :]
    return scratch(f"extreme{axis}", shape, values.dtype)


def _special_values(values: Array, extremes: Array) -> tuple[bool, bool]:
    """Return whether an output is NaN, and whether one is zero in a block with -0.0."""
    if extremes.size == 0 or extremes.dtype in INTEGERS:
        return False, False
    smallest = np.abs(extremes).min()
    if smallest > 0:
        return False, False
    integer = np.dtype(f"int{values.dtype.itemsize * 8}")
    is_negative_zero = values.view(integer) == np.iinfo(integer).min
    return bool(np.isnan(smallest)), bool(is_negative_zero.any())


def _first_taps(
    plan: PoolPlan, block: Block, stages: list[Array], indices: Array, has_nan: bool
) -> None:
    """Write the index of the first tap, in row-major order, that equals the output.

    Along each axis, the tap with the lowest window index is selected from those that equal the
    extreme of that stage. NaNs equal one another. Without a match, the index is "none": the
    largest value of its type.
    """
    none = np.iinfo(indices.dtype).max
    weights = _tap_weights([axis.kernel for axis in plan.axes])
    ignores = plan.nan_policy is NanPolicy.IGNORE
    previous: Array | None = None
    for axis, steps in enumerate(block.passes):
        source, extreme = stages[axis], stages[axis + 1]
        is_last = axis == len(block.passes) - 1
        current = indices if is_last else scratch(f"taps{axis}", extreme.shape, indices.dtype)
        current.fill(none)
        for step in steps:
            part = step.outputs
            found = equal(source[step.inputs], extreme[part], has_nan and not ignores)
            candidate = scratch("candidate", found.shape, indices.dtype)
            np.subtract(found.view(np.uint8), 1, out=candidate, dtype=indices.dtype)  # 0 or none
            weight = np.asarray(step.number * weights[axis]).astype(indices.dtype)
            if previous is None:
                np.bitwise_or(candidate, weight, out=candidate)
            else:
                number = scratch("number", found.shape, indices.dtype)
                np.add(previous[step.inputs], weight, out=number)
                np.bitwise_or(candidate, number, out=candidate)
            candidate = reduced(np.minimum, candidate, step)
            np.minimum(current[part], candidate, out=current[part])
        previous = current
    _fill_empty_windows(plan, block, indices, none)


def equal(tap: Array, extreme: Array, has_nan: bool) -> Array:
    """Return where a tap equals the extreme; with `has_nan`, NaNs equal one another."""
    found = np.equal(tap, extreme, out=scratch("found", tap.shape, np.bool_))
    return found | (np.isnan(tap) & np.isnan(extreme)) if has_nan else found


def _fill_empty_windows(plan: PoolPlan, block: Block, target: Array, value: float) -> None:
    """Set the outputs of windows that have no valid tap along at least one axis."""
    for number, axis in enumerate(plan.axes):
        if axis.dilation == 1:
            continue  # padding is less than the extent, so every window reaches an element
        first, stop = axis.tap_limits(block.outputs if number == 0 else (0, axis.outputs))
        empty = np.flatnonzero(first == stop)
        target[(slice(None),) * (number + 1) + (empty,)] = value


def _copy_selected(plan: PoolPlan, block: Block, x: Array, output: Array, indices: Array) -> None:
    """Copy the selected element bit for bit where the output is zero or NaN."""
    is_nan = np.isnan(output)
    is_copied = (output == 0) | is_nan
    output[is_nan] = np.nan  # the canonical NaN, where no element is selected
    is_copied &= indices != np.iinfo(indices.dtype).max
    cells = _cells(plan, block, indices)[is_copied]
    output[is_copied] = np.ascontiguousarray(x).reshape(-1)[cells]


def _cells(plan: PoolPlan, block: Block, indices: Array) -> Array:
    """Return the flat position in the block's inputs of the tap that each index names.

    Positions of "none", and of taps outside a band, are undefined.
    """
    steps = _steps_in_block(plan, block.inputs)
    cells = scratch("cells", indices.shape, np.int64)
    if plan.taps <= _TABLE_TAPS:
        np.take(_tap_offsets(plan, steps, np.arange(plan.taps)), indices, out=cells, mode="clip")
    else:
        np.copyto(cells, _tap_offsets(plan, steps, indices.astype(np.int64)))
    cells += _first_cells(plan, indices.shape[0], block.outputs, block.inputs)
    return cells


@lru_cache(maxsize=16)  # blocks of one plan are similar; an array has 8 bytes per output
def _first_cells(
    plan: PoolPlan, planes: int, outputs: tuple[int, int], inputs: tuple[int, int]
) -> Array:
    """Return the flat position of the first tap of each output; it may be in the padding."""
    steps = _steps_in_block(plan, inputs)
    plane = (inputs[1] - inputs[0]) * steps[0]
    positions = [np.arange(planes) * plane]
    for number, (axis, step) in enumerate(zip(plan.axes, steps, strict=True)):
        starts = axis.starts(outputs) - inputs[0] if number == 0 else axis.starts()
        positions.append(starts * step)
    positions.append(np.arange(plan.inner))
    return functools.reduce(np.add.outer, positions)


def _steps_in_block(plan: PoolPlan, inputs: tuple[int, int]) -> list[int]:
    """Return the distance of neighbours along each spatial axis, in elements of a block."""
    sizes = [inputs[1] - inputs[0], *(axis.size for axis in plan.axes[1:]), plan.inner]
    return _tap_weights(sizes)[:-1]


def _tap_offsets(plan: PoolPlan, steps: list[int], taps: Array) -> Array:
    """Return the distance of each tap from the first, in elements of the block."""
    offsets = np.zeros_like(taps)
    weights = _tap_weights([axis.kernel for axis in plan.axes])
    for axis, weight, step in zip(plan.axes, weights, steps, strict=True):
        offsets += taps // weight % axis.kernel * (axis.dilation * step)
    return offsets


def _tap_weights(sizes: list[int]) -> list[int]:
    """Return the row-major weight of each axis: the product of the sizes after it."""
    return [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
