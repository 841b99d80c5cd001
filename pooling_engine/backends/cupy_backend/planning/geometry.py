"""The windows of a plan as the integers of the struct `Windows` in `cuda/windows.cuh`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pooling_engine.plans.geometry import AdaptiveAxis, Axis
from pooling_engine.plans.plan import PoolPlan

KERNEL_AXES = 3
FEW = 2**31 - 2**10  # positions that 32 bits number, those of threads without work included

_UNUSED = (1, 1, 1, 1, 1, 0, 1)  # an axis of one element, for what is before the first


class Share(NamedTuple):
    """What one thread computes.

    Attributes:
        of_input: cells of the input, or else outputs.
        channels: how many channels of one position.
        neighbours: how many positions, side by side along the innermost axis.
        rows: how many positions, one after the other along the last axis but one.
    """

    of_input: bool
    channels: int = 1
    neighbours: int = 1
    rows: int = 1


def is_small(plan: PoolPlan) -> bool:
    """Whether 32 bits number every position, those in the padding included."""
    elements = math.prod(plan.input_block_shape)
    reached, step = elements, plan.inner
    for axis in reversed(plan.axes):
        reached += _furthest(axis) * step
        step *= axis.size
    return max(reached, math.prod(plan.output_block_shape), plan.taps) < FEW


def _furthest(axis: Axis) -> int:
    """More than any position, or product of positions, along an axis."""
    if isinstance(axis, AdaptiveAxis):
        return (axis.size + 1) * (axis.outputs + 1)
    w = axis.window
    return axis.size + (axis.outputs + 1) * w.stride + w.extent + w.padding_before + w.padding_after


def threads_of(plan: PoolPlan, share: Share) -> int:
    """How many threads have work."""
    _, *sizes, _ = plan.input_block_shape if share.of_input else plan.output_block_shape
    parts = (_parts(size, len(sizes) - number, share) for number, size in enumerate(sizes))
    return plan.outer * math.prod(parts) * (plan.inner // share.channels)


def _parts(size: int, place: int, share: Share) -> int:
    """How many threads lie along an axis, the `place`-th from the end."""
    own = {1: share.neighbours, 2: share.rows}.get(place, 1)
    return -(-size // own)


def windows_of(
    plan: PoolPlan, dtype: type[np.signedinteger[Any]], share: Share, rule: int
) -> NDArray[Any]:
    """The integers of the windows of a plan, as one value: CuPy passes no arrays but those of one.

    Args:
        dtype: of the integers: int32, or int64 where they need it.
        rule: what an average divides by.
    """
    is_fast = dtype is np.int32
    integers: list[int] = []
    axes = (_UNUSED,) * (KERNEL_AXES - len(plan.axes)) + tuple(map(_axis, plan.axes))
    for number, axis in enumerate(axes):
        size, outputs, _, stride, dilation, *_ = axis
        own = _parts(size if share.of_input else outputs, KERNEL_AXES - number, share)
        integers += axis
        for value in (own, max(1, stride), dilation):
            integers += _divisor(value, is_fast)
    integers += [plan.inner, *_divisor(plan.inner // share.channels, is_fast)]
    integers += [threads_of(plan, share), plan.taps, rule, share.rows]
    packed = np.array(integers, np.int64).astype(dtype)
    return packed.view(np.dtype((np.void, packed.nbytes)))


def _axis(axis: Axis) -> tuple[int, ...]:
    if isinstance(axis, AdaptiveAxis):
        return (axis.size, axis.outputs, axis.kernel, 0, 1, 0, axis.size)
    w = axis.window
    end = axis.size + w.padding_after
    return (axis.size, axis.outputs, w.kernel, w.stride, w.dilation, w.padding_before, end)


def _divisor(value: int, is_fast: bool) -> list[int]:
    """A number and, for 32 bits, what to multiply and shift by: n / value for n below 2^31."""
    if not is_fast:
        return [value, 0, 0]
    shift = (value - 1).bit_length()
    multiplier = (((1 << shift) - value) << 32) // value + 1
    return [value, multiplier - (multiplier >> 31 << 32), shift]
