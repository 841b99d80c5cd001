"""AVERAGE and SUM, and LP with a finite p. Everything is summed in float64."""

from __future__ import annotations

import math

import numpy as np

from pooling_engine.backends.numpy_kernels.block import Block
from pooling_engine.backends.numpy_kernels.passes import (
    Array,
    along,
    fold,
    scratch,
    spread,
)
from pooling_engine.plan import PoolPlan
from pooling_engine.spec import Mode


def sum_forward(plan: PoolPlan, block: Block, x: Array, output: Array) -> None:
    """The sum of each window, over the divisor for AVERAGE."""
    for axis, taps in enumerate(block.taps):
        total = scratch(f"sum{axis % 2}", _shape_after(x, output, axis), np.float64)
        fold(np.add, x, total, axis, taps, 0.0)
        x = total
    if plan.mode is Mode.AVERAGE:
        np.divide(x, _divisor(plan, block), out=output, casting="same_kind")
    else:
        np.copyto(output, x, casting="same_kind")


def sum_backward(plan: PoolPlan, block: Block, dy: Array, dx: Array) -> None:
    """Each window's gradient, over the divisor for AVERAGE, to every tap of the window."""
    gradient = scratch("gradient", dy.shape, np.float64)
    if plan.mode is Mode.AVERAGE:
        np.divide(dy, _divisor(plan, block), out=gradient, dtype=np.float64)
    else:
        np.copyto(gradient, dy)
    for axis, taps in enumerate(block.taps):
        total = scratch(f"sum{axis % 2}", _shape_after(gradient, dx, axis), np.float64)
        spread(gradient, total, axis, taps)
        gradient = total
    np.copyto(dx, gradient, casting="same_kind")


def norm_forward(plan: PoolPlan, block: Block, x: Array, output: Array) -> None:
    """The p-norm of each window: the norm along the last axis of norms along the others."""
    np.copyto(output, _norms(plan, block, x, output)[-1], casting="same_kind")


def norm_backward(plan: PoolPlan, block: Block, dy: Array, x: Array, dx: Array) -> None:
    """``dx = sum over windows of dy * sign(x) * (abs(x) / y)^(p - 1)``; 0 where y is 0.

    The chain rule through the norms of the forward pass, one axis at a time: every ratio is
    at most 1, so nothing overflows.
    """
    norms = _norms(plan, block, x, dy)
    gradient = scratch("gradient", dy.shape, np.float64)
    np.copyto(gradient, dy)
    for axis in reversed(range(len(block.taps))):
        inner, outer = norms[axis], norms[axis + 1]
        total = scratch(f"sum{axis % 2}", inner.shape, np.float64)
        total.fill(0)
        for tap in block.taps[axis]:
            inputs, outputs = along(axis, tap.inputs), along(axis, tap.outputs)
            norm = outer[outputs]
            ratio = np.divide(inner[inputs], norm, out=np.zeros_like(norm), where=norm != 0)
            total[inputs] += gradient[outputs] * ratio ** (plan.norm_p - 1)
        gradient = total
    np.multiply(gradient, np.sign(x), out=dx, casting="same_kind")


def _norms(plan: PoolPlan, block: Block, x: Array, output: Array) -> list[Array]:
    """abs(x), then the norms along the first axis, the first two, and so on; all float64.

    Each norm is scaled by the largest magnitude of its window, so no power overflows.
    """
    p = plan.norm_p
    norms = [np.abs(x, out=scratch("norm", x.shape, np.float64))]
    for axis, taps in enumerate(block.taps):
        source, shape = norms[-1], _shape_after(x, output, axis)
        largest = scratch(f"norm{axis}", shape, np.float64)
        fold(np.maximum, source, largest, axis, taps, 0.0)
        scale = np.where((largest == 0) | np.isinf(largest), 1.0, largest)
        total = scratch("powers", shape, np.float64)
        total.fill(0)
        for tap in taps:
            inputs, outputs = along(axis, tap.inputs), along(axis, tap.outputs)
            total[outputs] += (source[inputs] / scale[outputs]) ** p
        np.multiply(total ** (1 / p), scale, out=largest)
        norms.append(largest)
    return norms


def _shape_after(before: Array, after: Array, axis: int) -> tuple[int, ...]:
    """The shape once spatial axes 0 to `axis` of `before` have the sizes of `after`."""
    return after.shape[: axis + 2] + before.shape[axis + 2 :]


def _divisor(plan: PoolPlan, block: Block) -> float | Array:
    """The divisor of each output of a block, as a number where they are all the same."""
    if plan.divisor_override is not None:
        return plan.divisor_override
    factors = list(plan.divisors)
    factors[0] = factors[0][slice(*block.outputs)]
    if all(factor.size and factor.min() == factor.max() for factor in factors):
        return float(math.prod(int(factor[0]) for factor in factors))
    product = np.ones((1,) * (len(factors) + 1))
    for axis, factor in enumerate(factors):
        product = product * factor.reshape((-1,) + (1,) * (len(factors) - axis))
    return product
