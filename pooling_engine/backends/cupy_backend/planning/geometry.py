"""Windows of a plan as the integers of the struct `Windows` in `cuda/windows.cuh`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pooling_engine.plans.geometry import AdaptiveAxis, Axis
from pooling_engine.plans.plan import PoolPlan

KERNEL_AXES = 3
MAX_POSITIONS_32 = 2**31 - 2**10  # leaves room for the idle threads of the last block

_UNUSED = (1, 1, 1, 1, 1, 0, 1)  # axis of one element, in front of the plan's axes


class ThreadWork(NamedTuple):
    """Elements that one thread computes.

    Attributes:
        of_input: elements of the input (backward) instead of outputs (forward).
        channels: number of channels at one position.
        neighbours: number of adjacent positions along the innermost axis.
        rows: number of adjacent positions along the second-innermost axis.
    """

    of_input: bool
    channels: int = 1
    neighbours: int = 1
    rows: int = 1


def fits_32_bits(plan: PoolPlan) -> bool:
    """Return whether 32 bits number every position, including those in the padding."""
    reached, step = math.prod(plan.input_block_shape), plan.inner
    for axis in reversed(plan.axes):
        reached += _furthest(axis) * step
        step *= axis.size
    return max(reached, math.prod(plan.output_block_shape), plan.taps) < MAX_POSITIONS_32


def _furthest(axis: Axis) -> int:
    """Return an upper bound of the positions, and products of positions, along an axis."""
    if isinstance(axis, AdaptiveAxis):
        return (axis.size + 1) * (axis.outputs + 1)
    w = axis.window
    return axis.size + (axis.outputs + 1) * w.stride + w.extent + w.padding_before + w.padding_after


def thread_count(plan: PoolPlan, work: ThreadWork) -> int:
    """Return the number of threads that have work."""
    _, *sizes, _ = plan.input_block_shape if work.of_input else plan.output_block_shape
    along = (_threads_along(size, len(sizes) - n, work) for n, size in enumerate(sizes))
    return plan.outer * math.prod(along) * (plan.inner // work.channels)


def _threads_along(size: int, place: int, work: ThreadWork) -> int:
    """Return the number of threads along an axis, the `place`-th counted from the innermost."""
    per_thread = {1: work.neighbours, 2: work.rows}.get(place, 1)
    return -(-size // per_thread)


def packed_windows(
    plan: PoolPlan, dtype: type[np.signedinteger[Any]], work: ThreadWork, rule: int
) -> NDArray[Any]:
    """Return the struct `Windows` of a plan as one opaque value.

    CuPy passes an array to a kernel by value only if it has a single element.

    Args:
        dtype: integer type of the struct: int32 if `fits_32_bits`, else int64.
        rule: divisor rule of an average.
    """
    is_fast = dtype is np.int32
    integers: list[int] = []
    axes = (_UNUSED,) * (KERNEL_AXES - len(plan.axes)) + tuple(map(_axis, plan.axes))
    for number, axis in enumerate(axes):
        size, outputs, _, stride, dilation, *_ = axis
        threads = _threads_along(size if work.of_input else outputs, KERNEL_AXES - number, work)
        integers += axis
        for value in (threads, max(1, stride), dilation):
            integers += divisor_integers(value, is_fast)
    integers += [plan.inner, *divisor_integers(plan.inner // work.channels, is_fast)]
    integers += [thread_count(plan, work), plan.taps, rule, work.rows]
    packed = np.array(integers, np.int64).astype(dtype)
    return packed.view(np.dtype((np.void, packed.nbytes)))


def _axis(axis: Axis) -> tuple[int, ...]:
    if isinstance(axis, AdaptiveAxis):
        return (axis.size, axis.outputs, axis.kernel, 0, 1, 0, axis.size)
    w = axis.window
    end = axis.size + w.padding_after
    return (axis.size, axis.outputs, w.kernel, w.stride, w.dilation, w.padding_before, end)


def divisor_integers(value: int, is_fast: bool) -> list[int]:
    """Return a divisor with the multiplier and shift that replace it for n below 2^31."""
    if not is_fast:
        return [value, 0, 0]
    shift = (value - 1).bit_length()
    multiplier = (((1 << shift) - value) << 32) // value + 1
    return [value, multiplier - (multiplier >> 31 << 32), shift]
