"""Outputs that reach every element of a small plane."""

from __future__ import annotations

import math
from functools import reduce

import numpy as np

from pooling_engine.backends.numba_backend.language.arguments import CollectTables, Integers
from pooling_engine.backends.numba_backend.tables import tile_sizes
from pooling_engine.backends.numba_backend.tables.axes import is_unchanged
from pooling_engine.backends.numba_backend.tables.divisors import divisors_of
from pooling_engine.backends.numba_backend.tables.elements import element_of
from pooling_engine.backends.numba_backend.tables.reaching_outputs import outputs_in_tap_order
from pooling_engine.plans.divisors import divisors
from pooling_engine.plans.geometry import Axis, SlidingAxis
from pooling_engine.plans.plan import PoolPlan

MOST_REACHING = 4  # outputs that reach a position, for loops without branches
MOST_ROW = 40  # elements of a row; longer rows are collected in vectors
MOST_ELEMENTS = 4096  # of a plane, whose tables then fit in the L2 cache


def has_small_planes(plan: PoolPlan) -> bool:
    """Return whether `collect_planes` computes the gradients of a sum or average fastest."""
    elements = math.prod(max(axis.size, axis.outputs) for axis in plan.axes) * plan.inner
    if elements > MOST_ELEMENTS or plan.axes[-1].size * plan.inner > MOST_ROW:
        return False
    if all(map(_has_stride_1, plan.axes)):
        return False
    reaches = [_reach(outputs_in_tap_order(axis)[0]) for axis in plan.axes]
    return min(reaches) >= 1 and max(reaches) <= MOST_REACHING


def collect_tables(plan: PoolPlan) -> CollectTables:
    """Return the tables of `collect_planes` for a plan."""
    shape = [axis.outputs for axis in plan.axes] + [plan.inner]
    outputs = largest = math.prod(shape)
    slots: list[Integers] = []
    steps: list[int] = []
    for number, axis in enumerate(plan.axes):
        if is_unchanged(axis):
            continue
        own = _slots(axis)
        places = np.arange(math.prod(shape)).reshape(shape)
        taken = np.take(places, np.maximum(own, 0), axis=number)  # slots as one more axis
        shape[number] = axis.size
        along = (len(own), *(1,) * number, axis.size, *(1,) * (len(shape) - 1 - number))
        is_used = (own >= 0).reshape(along)
        table = np.where(is_used, np.moveaxis(taken, number, 0), -1)
        steps += [sum(map(len, slots)), math.prod(shape), len(own)]
        slots.append(table.reshape(-1))
        largest = max(largest, math.prod(shape))
    size = math.prod(shape)
    height = max(1, min(plan.outer, tile_sizes.STACKED // (size * plan.dtype.itemsize)))
    common = divisors_of(plan)
    return CollectTables(
        slots=np.concatenate(slots).astype(np.int32),
        steps=np.array(steps, np.int64),
        divisors=_each_divisor(plan) if len(common.factors) else np.empty(0),
        divisor=common.divisor,
        outputs=outputs,
        size=size,
        largest=largest,
        planes=plan.outer,
        height=height,
        tiles=-(-plan.outer // height),
        element=element_of(plan),
    )


def _slots(axis: Axis) -> Integers:
    """Return the first output that reaches each position, the second, ...; -1 if there is none."""
    ends, outputs = outputs_in_tap_order(axis)
    numbers = np.arange(_reach(ends))[:, None]
    places = np.minimum(ends[:-1] + numbers, len(outputs) - 1)
    return np.where(numbers < np.diff(ends), outputs[places], -1)


def _reach(ends: Integers) -> int:
    return int(np.diff(ends).max())


def _has_stride_1(axis: Axis) -> bool:
    if not isinstance(axis, SlidingAxis):
        return False
    return axis.window.stride == 1 and axis.dilation == 1


def _each_divisor(plan: PoolPlan) -> np.ndarray:
    product = reduce(np.multiply.outer, divisors(plan)).astype(np.float64)
    return np.repeat(product.reshape(-1), plan.inner)
