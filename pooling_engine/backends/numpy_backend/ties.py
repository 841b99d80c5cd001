"""Tie policies ALL and SPLIT: every element that equals the extreme receives a share."""

from __future__ import annotations

import numpy as np

from pooling_engine.backends.numpy_backend.block import Block
from pooling_engine.backends.numpy_backend.passes import Array, in_tap_order, reduced, scratch
from pooling_engine.backends.numpy_backend.select import (
    as_comparable,
    combine_of,
    equal,
    extremes_by_axis,
)
from pooling_engine.backends.numpy_backend.sums import make_canonical
from pooling_engine.backends.rules import reject_nan
from pooling_engine.dtypes import store
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import NanPolicy, TiePolicy


def tie_backward(plan: PoolPlan, block: Block, dy: Array, x: Array, dx: Array) -> None:
    """Add the gradient of each window to all of its tied elements, whole or in equal shares.

    An element equals the extreme of its window if it equals the extreme along the first axis, that
    one equals the extreme along the first two axes, and so on. So the gradient is propagated one
    axis at a time. It is added in tap order: the order of the passes depends on the division into
    blocks.
    """
    values = as_comparable(plan, x)
    output = scratch("output", dy.shape, values.dtype)
    stages = [values, *extremes_by_axis(plan, block, values, output)]
    has_nan = _has_nan(plan, stages[-1])
    gradient = scratch("gradient", dy.shape, np.float64)
    np.copyto(gradient, dy)
    if plan.tie_policy is TiePolicy.SPLIT:
        gradient /= np.maximum(1, _count_ties(block, stages, has_nan))
    for axis in reversed(range(len(block.passes))):
        source, extreme = stages[axis], stages[axis + 1]
        total = scratch(f"sum{axis % 2}", source.shape, np.float64)
        total.fill(0)
        for step in in_tap_order(block.passes[axis]):
            is_tied = equal(source[step.inputs], extreme[step.outputs], has_nan)
            total[step.inputs] += np.where(is_tied, gradient[step.outputs], 0.0)
        gradient = total
    store(dx, gradient)
    make_canonical(dx)


def global_tie_backward(plan: PoolPlan, dy: Array, x: Array, dx: Array) -> None:
    """Compute `tie_backward` for one window over each plane (outer, positions, inner)."""
    values = as_comparable(plan, x)
    extreme = combine_of(plan).reduce(values, axis=1, keepdims=True)
    is_tied = equal(values, extreme, _has_nan(plan, extreme))
    gradient = dy.astype(np.float64)
    if plan.tie_policy is TiePolicy.SPLIT:
        gradient /= np.maximum(1, is_tied.sum(axis=1, keepdims=True))
    store(dx, np.where(is_tied, gradient, 0.0))
    make_canonical(dx)


def _has_nan(plan: PoolPlan, extremes: Array) -> bool:
    """Return whether NaNs are selected, and therefore tied with one another."""
    if not np.isnan(extremes).any():
        return False
    reject_nan(plan)
    return plan.nan_policy is not NanPolicy.IGNORE


def _count_ties(block: Block, stages: list[Array], has_nan: bool) -> Array:
    """Return the number of elements of each window that equal its extreme."""
    count: Array = np.ones(stages[0].shape)
    for axis, steps in enumerate(block.passes):
        source, extreme = stages[axis], stages[axis + 1]
        total = np.zeros(extreme.shape)
        for step in steps:
            is_tied = equal(source[step.inputs], extreme[step.outputs], has_nan)
            ties = np.where(is_tied, count[step.inputs], 0.0)
            total[step.outputs] += reduced(np.add, ties, step)
        count = total
    return count
