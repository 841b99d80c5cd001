"""AVERAGE, SUM, and LP with a finite p. All sums of floats are float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from pooling_engine.backends.numpy_backend.block import Block
from pooling_engine.backends.numpy_backend.passes import (
    Array,
    fold,
    reduced,
    scratch,
    spread,
)
from pooling_engine.backends.numpy_backend.scans import scan
from pooling_engine.backends.rules import may_overflow, reject_overflow
from pooling_engine.dtypes import FLOATS, INTEGERS, is_bfloat16, store
from pooling_engine.plans.divisors import divisors
from pooling_engine.plans.geometry import SlidingAxis
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import Mode


def sum_forward(plan: PoolPlan, block: Block, x: Array, output: Array) -> None:
    """Compute the sum of each window, over the divisor for AVERAGE."""

    def add(values: Array, dtype: type) -> Array:
        for number, (axis, steps) in enumerate(zip(plan.axes, block.passes, strict=True)):
            total = scratch(f"sum{number % 2}", _shape_after(values, output, number), dtype)
            if isinstance(axis, SlidingAxis) and plan.scans(axis):
                whole = (0, axis.outputs), (0, axis.size)
                ranges = whole if number else (block.outputs, block.inputs)
                scan(values, total, number, axis, *ranges)
            else:
                fold(np.add, values, total, steps, 0)
            values = total
        return values

    write_sums(plan, total_of(plan, x, add), _divisor(plan, block), output)


def total_of(plan: PoolPlan, x: Array, add: Callable[[Array, type], Array]) -> Array:
    """Return the sums of windows: float64 for floats, int64 for integers, never wrapped.

    Args:
        plan: plan of the call.
        x: the elements.
        add: function that sums windows of an array in a given type.

    Raises:
        InvalidTensorError: a sum of integers does not fit in int64.
    """
    if x.dtype not in INTEGERS:
        return add(x, np.float64)
    if not may_overflow(plan):
        return add(x, np.int64)
    # Upper and lower halves are summed separately: neither can wrap, and the carry is known.
    upper = add(np.right_shift(x, 32, dtype=np.int64), np.int64).copy()
    lower = add(np.bitwise_and(x, 0xFFFFFFFF, dtype=np.int64), np.int64)
    upper += lower >> 32
    if upper.size and (upper.min() < -(1 << 31) or upper.max() >= 1 << 31):
        reject_overflow()
    whole: Array = (upper << 32) | (lower & 0xFFFFFFFF)
    return whole


def write_sums(plan: PoolPlan, total: Array, divisor: float | Array, output: Array) -> None:
    """Write sums, over the divisor for AVERAGE, in the output's type."""
    if plan.mode is Mode.AVERAGE and output.dtype.itemsize == 2:
        store(output, total / divisor)
    elif plan.mode is Mode.AVERAGE and plan.dtype == np.int64:
        output[...] = _nearest_quotient(total, divisor)
    elif plan.mode is Mode.AVERAGE:
        np.divide(total, divisor, out=output, casting="same_kind")
    elif output.dtype in INTEGERS:
        np.copyto(output, total)
    else:
        store(output, total)
    if output.dtype in FLOATS:
        make_canonical(output)


def _nearest_quotient(total: Array, divisor: float | Array) -> Array:
    """Return the float64 nearest to an int64 over the divisor, rounded once.

    float64 would round the total before the division, so a wider type divides. If its quotient is
    halfway between two float64, it may have been rounded to there; exact fractions then decide.
    """
    wide = total.astype(np.longdouble) / divisor
    nearest = wide.astype(np.float64)
    opposite = 2 * wide - nearest  # `nearest` mirrored at `wide`
    is_halfway = (opposite != nearest) & (opposite == opposite.astype(np.float64))
    is_halfway &= np.isfinite(nearest)
    divisors = np.broadcast_to(np.asarray(divisor), total.shape)
    for place in zip(*np.nonzero(is_halfway), strict=True):
        nearest[place] = Fraction(int(total[place])) / Fraction(float(divisors[place]))
    return nearest


def sum_backward(plan: PoolPlan, block: Block, dy: Array, dx: Array) -> None:
    """Add the gradient of each window, over the divisor for AVERAGE, to all of its elements."""
    gradient = scratch("gradient", dy.shape, np.float64)
    if plan.mode is Mode.AVERAGE:
        np.divide(dy, _divisor(plan, block), out=gradient, dtype=np.float64)
    else:
        np.copyto(gradient, dy)
    for axis, steps in enumerate(block.passes):
        total = scratch(f"sum{axis % 2}", _shape_after(gradient, dx, axis), np.float64)
        spread(gradient, total, steps)
        gradient = total
    store(dx, gradient)
    make_canonical(dx)


def norm_forward(plan: PoolPlan, block: Block, x: Array, output: Array) -> None:
    """Compute the p-norm of each window: norms of norms, one axis at a time."""
    store(output, _norms(plan, block, x, output)[-1])
    make_canonical(output)


def norm_backward(plan: PoolPlan, block: Block, dy: Array, x: Array, dx: Array) -> None:
    """Compute the sum over windows of ``dy * sign(x) * (abs(x) / y)^(p - 1)``; 0 where y is 0.

    The chain rule is applied to the norms of the forward pass, one axis at a time. Every ratio is
    at most 1, so nothing overflows. An infinite element has ratio 1 and the others of its window
    have 0: the limit where the formula is undefined.
    """
    norms = _norms(plan, block, x, dy)
    gradient = scratch("gradient", dy.shape, np.float64)
    np.copyto(gradient, dy)
    last = len(block.passes) - 1
    for axis in range(last, -1, -1):
        inner, outer = norms[axis], norms[axis + 1]
        total = scratch(f"sum{axis % 2}", inner.shape, np.float64)
        total.fill(0)
        for step in block.passes[axis]:
            part, norm = inner[step.inputs], outer[step.outputs]
            ratio = np.where(part == norm, 1.0, part / norm)  # 1 for 0 / 0 and for inf / inf
            share = gradient[step.outputs] * ratio ** (plan.norm_p - 1)
            if axis == last:  # along other axes, an all-zero part of a window has a gradient
                share = np.where(norm == 0, 0.0, share)
            total[step.inputs] += share
        gradient = total
    store(dx, times_sign(gradient, x))
    _clear_between(block, dx)
    make_canonical(dx)


def _clear_between(block: Block, dx: Array) -> None:
    """Set elements that no window reaches to 0; a NaN there times a gradient of 0 is NaN."""
    for axis, steps in enumerate(block.passes):
        is_reached = np.zeros(dx.shape[axis + 1], np.bool_)
        for step in steps:
            is_reached[step.inputs[-1]] = True
        dx[(slice(None),) * (axis + 1) + (np.flatnonzero(~is_reached),)] = 0


def times_sign(gradient: Array, x: Array) -> Array:
    """Return ``gradient * sign(x)``, and 0 where the gradient is 0, even if x is NaN."""
    return np.where(gradient == 0, 0, gradient * np.sign(x))


def make_canonical(array: Array) -> None:
    """Give zeros and NaNs one form; in sums, their bits depend on the division into blocks."""
    if is_bfloat16(array.dtype):
        array[array == 0] = 0
    else:
        np.add(array, 0.0, out=array)  # -0.0 becomes 0.0
    is_nan = np.isnan(array)
    if is_nan.any():
        array[is_nan] = np.nan


def _norms(plan: PoolPlan, block: Block, x: Array, output: Array) -> list[Array]:
    """Return abs(x), then the norms along the first axis, the first two, ...; all float64.

    Each norm is scaled by the largest magnitude of its window, so no power overflows.
    """
    p = plan.norm_p
    norms = [np.abs(x, out=scratch("norm", x.shape, np.float64))]
    for axis, steps in enumerate(block.passes):
        source, shape = norms[-1], _shape_after(x, output, axis)
        largest = scratch(f"norm{axis}", shape, np.float64)
        fold(np.maximum, source, largest, steps, 0.0)
        scale = norm_scale(largest, p)
        total = scratch("powers", shape, np.float64)
        total.fill(0)
        for step in steps:
            powers = (source[step.inputs] / scale[step.outputs]) ** p
            total[step.outputs] += reduced(np.add, powers, step)
        np.multiply(total ** (1 / p), scale, out=largest)
        norms.append(largest)
    return norms


def norm_scale(largest: Array, p: float) -> Array:
    """Return the divisor of a window before the power: about its largest magnitude.

    A power of two divides exactly, so sums of integers stay exact. Its ratios are up to 2, which
    would overflow for a large p, so the magnitude itself is used there.
    """
    if p <= 64:
        _, exponents = np.frexp(largest)
        scale: Array = np.ldexp(1.0, exponents - 1)  # ratios below 2
    else:
        scale = largest
    return np.where((largest == 0) | ~np.isfinite(scale), 1.0, scale)


def _shape_after(before: Array, after: Array, axis: int) -> tuple[int, ...]:
    """Return the shape of `before`, with the sizes of `after` in spatial axes 0 to `axis`."""
    return after.shape[: axis + 2] + before.shape[axis + 2 :]


def _divisor(plan: PoolPlan, block: Block) -> float | Array:
    """Return the divisor of each output of a block; one number if all are equal."""
    if plan.divisor_override is not None:
        return plan.divisor_override
    factors = list(divisors(plan))
    factors[0] = factors[0][slice(*block.outputs)]
    if all(factor.size and factor.min() == factor.max() for factor in factors):
        return float(math.prod(int(factor[0]) for factor in factors))
    product = np.ones((1,) * (len(factors) + 1))
    for axis, factor in enumerate(factors):
        product = product * factor.reshape((-1,) + (1,) * (len(factors) - axis))
    return product
