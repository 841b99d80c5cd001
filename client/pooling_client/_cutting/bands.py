"""Where an axis is cut: runs that fit a message, and the windows of one of them.

Runs of rows, or of outputs, follow one another without a gap.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from pooling_engine import PoolPlan, PoolSpec
from pooling_engine.plans.geometry import MAX_TAPS_PER_AXIS, AdaptiveAxis, Axis, SlidingAxis

Range = tuple[int, int]


def even_runs(count: int, most: int) -> list[Range]:
    """Runs of at most `most` that are as even as can be."""
    parts = -(-count // most)
    return [(count * part // parts, count * (part + 1) // parts) for part in range(parts)]


def runs(count: int, step: int, fits: Callable[[int, int], bool]) -> Iterator[Range]:
    """Runs of as many whole steps as fit, and at least one."""
    start = 0
    while start < count:
        later = range(start + 2 * step, count + 1, step)
        more = bisect_left(later, True, key=lambda stop: not fits(start, stop))
        yield start, start + (1 + more) * step
        start += (1 + more) * step


def output_runs(axis: Axis, fits: Callable[[int, int], bool]) -> Iterator[Range]:
    """Runs of as many outputs as fit and can be asked for in one spec, and at least one."""
    if isinstance(axis, SlidingAxis):
        yield from runs(axis.outputs, 1, fits)
        return
    period = axis.outputs // math.gcd(axis.size, axis.outputs)
    start = 0
    while start < axis.outputs:
        _, stop = next(runs(axis.outputs - start, 1, lambda a, b: fits(start + a, start + b)))  # noqa: B023
        halved = [stop >> halvings for halvings in range(stop.bit_length())]
        outputs = next(
            outputs
            for outputs in (stop - stop % period, *halved)
            if outputs and _is_alike(axis, start, start + outputs)
        )
        yield start, start + outputs
        start += outputs


def _is_alike(axis: AdaptiveAxis, start: int, stop: int) -> bool:
    """Whether outputs [start, stop) have the windows of so many adaptive outputs of their rows."""
    first, last = axis.inputs_of(start, stop)
    size, outputs = last - first, stop - start
    common = math.gcd(size, outputs)
    if size % outputs and (size + outputs) // common > MAX_TAPS_PER_AXIS:
        return False
    here, there = np.arange(outputs, dtype=np.int64), np.arange(start, stop, dtype=np.int64)
    starts = there * axis.size // axis.outputs - first
    stops = -(-(there + 1) * axis.size // axis.outputs) - first
    return np.array_equal(here * size // outputs, starts) and np.array_equal(
        -(-(here + 1) * size // outputs), stops
    )


def band_spec(spec: PoolSpec, plan: PoolPlan, outputs: Range, inputs: Range) -> PoolSpec:
    """The spec whose windows over the input range are those of the output range."""
    if spec.adaptive_output is not None:
        counts = (outputs[1] - outputs[0], *(axis.outputs for axis in plan.axes[1:]))
        return replace(spec, adaptive_output=counts)
    windows = [axis.window for axis in plan.axes if isinstance(axis, SlidingAxis)]
    w = windows[0]
    first = outputs[0] * w.stride - w.padding_before
    last = (outputs[1] - 1) * w.stride - w.padding_before + w.extent
    # What ceil mode lets hang over the padding is left to ceil mode: it never counts in a divisor.
    after = max(0, min(last, plan.sizes[0] + w.padding_after) - inputs[1])
    pads = [(window.padding_before, window.padding_after) for window in windows[1:]]
    return replace(
        spec,
        kernel=tuple(window.kernel for window in windows),
        stride=tuple(window.stride for window in windows),
        dilation=tuple(window.dilation for window in windows),
        padding=((max(0, -first), after), *pads),
    )
