"""Splitting of one axis: contiguous ranges that fit into a message, and the spec of a row band."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from pooling_engine import PoolPlan, PoolSpec
from pooling_engine.plans import MAX_STEPS_PER_AXIS, AdaptiveAxis, Axis, SlidingAxis

Range = tuple[int, int]  # begin and end


def even_ranges(count: int, max_size: int) -> list[Range]:
    """Return ranges of at most `max_size`, of sizes that differ by at most 1."""
    parts = -(-count // max_size)
    return [(count * part // parts, count * (part + 1) // parts) for part in range(parts)]


def fitting_ranges(count: int, step: int, fits: Callable[[int, int], bool]) -> Iterator[Range]:
    """Yield ranges of as many whole steps as fit, and at least one step."""
    start = 0
    while start < count:
        later = range(start + 2 * step, count + 1, step)
        more = bisect_left(later, True, key=lambda stop: not fits(start, stop))
        yield start, start + (1 + more) * step
        start += (1 + more) * step


def output_ranges(
    axis: Axis, step: int, least: int, fits: Callable[[int, int], bool]
) -> list[Range]:
    """Return ranges of as many outputs as fit and as one spec can express.

    Args:
        axis: first spatial axis.
        step: number of whose multiples the ranges consist, except the last one.
        least: fewest outputs of a range.
        fits: function that returns whether a range is small enough.
    """
    if isinstance(axis, SlidingAxis):
        *ranges, (start, _) = fitting_ranges(axis.outputs, step, fits)
        if ranges and axis.outputs - start < least:
            start, _ = ranges.pop()
        return [*ranges, (start, axis.outputs)]
    ranges = list(_adaptive_ranges(axis, fits))
    is_short = any(stop - start < least for start, stop in ranges)
    return [(0, axis.outputs)] if is_short else ranges


def _adaptive_ranges(axis: AdaptiveAxis, fits: Callable[[int, int], bool]) -> Iterator[Range]:
    period = axis.outputs // math.gcd(axis.size, axis.outputs)
    start = 0

    def fits_from_start(begin: int, end: int) -> bool:
        return fits(start + begin, start + end)

    while start < axis.outputs:
        _, stop = next(fitting_ranges(axis.outputs - start, 1, fits_from_start))
        halved = [stop >> halvings for halvings in range(stop.bit_length())]
        outputs = next(
            outputs
            for outputs in (stop - stop % period, *halved)
            if outputs and _is_adaptive_range(axis, start, start + outputs)
        )
        yield start, start + outputs
        start += outputs


def _is_adaptive_range(axis: AdaptiveAxis, start: int, stop: int) -> bool:
    """Return whether a spec with `stop - start` adaptive outputs has the windows of the range."""
    first, last = axis.inputs_of(start, stop)
    size, outputs = last - first, stop - start
    common = math.gcd(size, outputs)
    if size % outputs and min((size + outputs) // common, outputs) > MAX_STEPS_PER_AXIS:
        return False
    here, there = np.arange(outputs, dtype=np.int64), np.arange(start, stop, dtype=np.int64)
    starts = there * axis.size // axis.outputs - first
    stops = -(-(there + 1) * axis.size // axis.outputs) - first
    return np.array_equal(here * size // outputs, starts) and np.array_equal(
        -(-(here + 1) * size // outputs), stops
    )


def row_band_spec(spec: PoolSpec, plan: PoolPlan, outputs: Range, inputs: Range) -> PoolSpec:
    """Return the spec whose windows over the input rows are those of the output rows."""
    if spec.adaptive_output is not None:
        counts = (outputs[1] - outputs[0], *(axis.outputs for axis in plan.axes[1:]))
        return replace(spec, adaptive_output=counts)
    windows = [axis.window for axis in plan.axes if isinstance(axis, SlidingAxis)]
    w = windows[0]
    first = outputs[0] * w.stride - w.padding_before
    last = (outputs[1] - 1) * w.stride - w.padding_before + w.extent
    # Ceil mode covers elements beyond the padding; they never count in a divisor.
    after = max(0, min(last, plan.sizes[0] + w.padding_after) - inputs[1])
    pads = [(window.padding_before, window.padding_after) for window in windows[1:]]
    return replace(
        spec,
        kernel=tuple(window.kernel for window in windows),
        stride=tuple(window.stride for window in windows),
        dilation=tuple(window.dilation for window in windows),
        padding=((max(0, -first), after), *pads),
    )
