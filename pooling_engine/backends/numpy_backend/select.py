"""MAX and MIN (and LP with p = inf): the selected element, its index, its gradient.

The values come from `np.maximum`, which is fast but settles neither which of two zeros nor
which of several NaNs it returns. Where that matters, the selected tap is looked up and its
element taken bit for bit.
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
    scratch,
)
from pooling_engine.backends.numpy_backend.sums import make_canonical
from pooling_engine.backends.rules import empty_window_extreme, reject_nan
from pooling_engine.dtypes import INTEGERS, store
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import Mode, NanPolicy

_TABLE_TAPS = 65_536  # windows up to this size get a table of tap offsets


def select_forward(
    plan: PoolPlan, block: Block, x: Array, output: Array, indices: Array | None
) -> None:
    """Writes the selected element of each window and, if given, its window index."""
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
    has_nan, has_zeros_of_both_signs = _doubts(values, extremes)
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
    """Adds the gradient of each window to its selected cell, in float64, in window order."""
    cells = _cells(plan, block, indices).reshape(-1)
    weights = scratch("weights", dy.shape, np.float64)
    np.copyto(weights, dy)
    weights = weights.reshape(-1)
    kept = indices.reshape(-1) != np.iinfo(indices.dtype).max
    if block.inputs != (0, plan.axes[0].size):
        kept &= (cells >= 0) & (cells < dx.size)
    if not kept.all():
        cells, weights = cells[kept], weights[kept]
    total = np.bincount(cells, weights=weights, minlength=dx.size)
    store(dx, total.reshape(dx.shape))
    make_canonical(dx)


def as_comparable(plan: PoolPlan, x: Array) -> Array:
    """The block in a type that NumPy compares at full speed: 16-bit floats become float32.

    Where NaNs are ignored they become quiet ones: `np.fmax` takes a signalling one for the larger.
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
    """The function that keeps the extreme of two elements, and a NaN or not by the policy."""
    if plan.nan_policy is NanPolicy.IGNORE:
        return np.fmin if plan.mode is Mode.MIN else np.fmax
    return np.minimum if plan.mode is Mode.MIN else np.maximum


def extremes_by_axis(plan: PoolPlan, block: Block, values: Array, output: Array) -> list[Array]:
    """The extremes along the first spatial axis, the first two, and so on to the outputs."""
    combine, empty = combine_of(plan), empty_window_extreme(plan)
    if plan.nan_policy is NanPolicy.IGNORE and plan.dtype not in INTEGERS:
        empty = np.nan  # what the other taps of a window are compared with: it must not win
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
    """Scratch for the extremes along the spatial axes up to `axis`."""
    shape = output.shape[: axis + 2] + values.shape[axis + 2 :]
    return scratch(f"extreme{axis}", shape, values.dtype)


def _doubts(values: Array, extremes: Array) -> tuple[bool, bool]:
    """Whether an output is a NaN; whether one is a zero while the block has both zeros."""
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
    """The first tap in row-major window order that equals the output, axis by axis.

    Along each axis, of the taps that equal the stage's extreme, the one with the lowest
    window index is kept; NaNs equal one another. No match leaves the top value, "none".
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
            weight = step.number * weights[axis]
            if previous is None:
                np.bitwise_or(candidate, weight, out=candidate)
            else:
                number = scratch("number", found.shape, indices.dtype)
                np.add(previous[step.inputs], weight, out=number)
                np.bitwise_or(candidate, number, out=candidate)
            np.minimum(current[part], candidate, out=current[part])
        previous = current
    _fill_empty_windows(plan, block, indices, none)


def equal(tap: Array, extreme: Array, has_nan: bool) -> Array:
    """Where a tap equals the extreme; with `has_nan`, NaNs equal one another."""
    found = np.equal(tap, extreme, out=scratch("found", tap.shape, np.bool_))
    return found | (np.isnan(tap) & np.isnan(extreme)) if has_nan else found


def _fill_empty_windows(plan: PoolPlan, block: Block, target: Array, value: float) -> None:
    """Sets the outputs that have no valid tap along some axis, whatever the other axes say."""
    for number, axis in enumerate(plan.axes):
        if axis.dilation == 1:
            continue  # padding is less than the extent, so every window reaches an element
        first, stop = axis.tap_limits(block.outputs if number == 0 else (0, axis.outputs))
        empty = np.flatnonzero(first == stop)
        target[(slice(None),) * (number + 1) + (empty,)] = value


def _copy_selected(plan: PoolPlan, block: Block, x: Array, output: Array, indices: Array) -> None:
    """Copies the selected element bit for bit where the output is a zero or a NaN."""
    is_nan = np.isnan(output)
    doubtful = (output == 0) | is_nan
    output[is_nan] = np.nan  # one form, where none is selected
    doubtful &= indices != np.iinfo(indices.dtype).max
    cells = _cells(plan, block, indices)[doubtful]
    output[doubtful] = np.ascontiguousarray(x).reshape(-1)[cells]


def _cells(plan: PoolPlan, block: Block, indices: Array) -> Array:
    """The flat position, in the block's inputs, of the tap that each index names.

    Positions of "none", and of taps outside a band, are meaningless.
    """
    steps = _steps_in_block(plan, block.inputs)
    cells = scratch("cells", indices.shape, np.int64)
    if plan.taps <= _TABLE_TAPS:
        np.take(_tap_offsets(plan, steps, np.arange(plan.taps)), indices, out=cells, mode="clip")
    else:
        np.copyto(cells, _tap_offsets(plan, steps, indices.astype(np.int64)))
    cells += _first_cells(plan, indices.shape[0], block.outputs, block.inputs)
    return cells


@lru_cache(maxsize=16)  # the blocks of one plan are alike; an array has 8 bytes for each output
def _first_cells(
    plan: PoolPlan, planes: int, outputs: tuple[int, int], inputs: tuple[int, int]
) -> Array:
    """The flat position of the first tap of each output of a block; may be in the padding."""
    steps = _steps_in_block(plan, inputs)
    plane = (inputs[1] - inputs[0]) * steps[0]
    positions = [np.arange(planes) * plane]
    for number, (axis, step) in enumerate(zip(plan.axes, steps, strict=True)):
        starts = axis.starts(outputs) - inputs[0] if number == 0 else axis.starts()
        positions.append(starts * step)
    positions.append(np.arange(plan.inner))
    return functools.reduce(np.add.outer, positions)


def _steps_in_block(plan: PoolPlan, inputs: tuple[int, int]) -> list[int]:
    """How far apart neighbours along each spatial axis are, in elements of a block."""
    sizes = [inputs[1] - inputs[0], *(axis.size for axis in plan.axes[1:]), plan.inner]
    return _tap_weights(sizes)[:-1]


def _tap_offsets(plan: PoolPlan, steps: list[int], taps: Array) -> Array:
    """How far each tap is from the first, in elements of the block."""
    offsets = np.zeros_like(taps)
    weights = _tap_weights([axis.kernel for axis in plan.axes])
    for axis, weight, step in zip(plan.axes, weights, steps, strict=True):
        offsets += taps // weight % axis.kernel * (axis.dilation * step)
    return offsets


def _tap_weights(sizes: list[int]) -> list[int]:
    """The row-major weight of each axis: the product of the sizes after it."""
    return [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
