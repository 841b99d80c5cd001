"""Division of a call into blocks that fit in cache: runs of planes, or row bands of a plane."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from pooling_engine.plans.geometry import AdaptiveAxis, Axis, taps_between
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import Mode

WINDOW_TAPS = 16  # more taps than this per output: a pass has a step for each window
BLOCK_BYTES = 1 << 20  # of float32 input; the fastest of 256 KiB to 4 MiB with an L2 cache of 1 MiB

Index = tuple[slice, ...]


class Step(NamedTuple):
    """One tap of all windows, or all taps of one window, along one spatial axis of a block.

    Attributes:
        number: number of the tap along the axis; for a window, the numbers of its taps, as an
            array that broadcasts over the block.
        outputs: outputs whose window has this tap on an element; for a window, its output.
        inputs: those elements; for a tap as many as outputs, for a window the elements of its taps.
        others: parts with all outputs that this tap does not reach; they may overlap `outputs`.
        reduced: the array axis of the taps of a window; None for a tap.
    """

    number: Any
    outputs: Index
    inputs: Index
    others: tuple[Index, ...]
    reduced: int | None = None


class Flat(NamedTuple):
    """Taps of all spatial axes as distances in a block that is read as one flat row.

    Attributes:
        offsets: for each spatial axis, the distances of its taps from the first tap.
        firsts: positions of the first taps of all windows, where the outputs appear.
    """

    offsets: tuple[tuple[int, ...], ...]
    firsts: Index


class Block(NamedTuple):
    """Run of planes, or row band of a plane: a range of the first spatial axis.

    Attributes:
        outer: the run of planes.
        outputs: outputs of the band along the first spatial axis.
        inputs: elements of the band along the first spatial axis.
        passes: for each spatial axis, the taps from outputs to inputs: in tap order, or, for
            modes that do not depend on the order, those that reach the most outputs first; the
            windows, if they are few and large; none for an axis that is scanned.
        flat: the taps of the block as one row, if that is faster; else None.
    """

    outer: slice
    outputs: tuple[int, int]
    inputs: tuple[int, int]
    passes: tuple[tuple[Step, ...], ...]
    flat: Flat | None

    @property
    def output_part(self) -> Index:
        """Slices of the block's outputs in an array of the output's block shape."""
        return self.outer, slice(*self.outputs)

    @property
    def input_part(self) -> Index:
        """Slices of the block's inputs in an array of the input's block shape."""
        return self.outer, slice(*self.inputs)


@lru_cache(maxsize=256)
def forward_blocks(plan: PoolPlan) -> tuple[Block, ...]:
    """Return blocks that partition the outputs; the inputs of bands may overlap."""
    first = plan.axes[0]
    planes, rows = _planes_and_rows(plan, first.outputs)
    if rows >= first.outputs:  # whole planes, so that a block is contiguous
        bands = [((0, first.outputs), (0, first.size))]
    else:
        runs = _runs(first.outputs, rows)
        bands = [((start, stop), first.inputs_of(start, stop)) for start, stop in runs]
    return _blocks(plan, planes, bands, has_scans=True)


@lru_cache(maxsize=256)
def backward_blocks(plan: PoolPlan) -> tuple[Block, ...]:
    """Return blocks that partition the inputs; the outputs of bands may overlap.

    Every element is in exactly one block, with all outputs that reach it. The gradients of norms
    and of shared ties need the whole windows of those outputs, so their planes are not divided
    into bands. Planes of a global window are not divided either.
    """
    first = plan.axes[0]
    planes, rows = _planes_and_rows(plan, first.size)
    if plan.mode is Mode.LP or plan.is_global or plan.shares_ties:
        rows = first.size
    bands = [
        (first.outputs_of(start, stop), (start, stop)) for start, stop in _runs(first.size, rows)
    ]
    return _blocks(plan, planes, bands, has_scans=False)


def _planes_and_rows(plan: PoolPlan, rows: int) -> tuple[int, int]:
    """Return the number of planes of a block, and its number of rows (at most `rows`)."""
    plane_bytes = max(1, plan.input_bytes // max(1, plan.outer) * 4 // plan.dtype.itemsize)
    if plane_bytes <= BLOCK_BYTES:
        return BLOCK_BYTES // plane_bytes, rows
    bands = -(-plane_bytes // BLOCK_BYTES)
    return 1, max(1, -(-rows // bands))


def _blocks(
    plan: PoolPlan,
    planes: int,
    bands: list[tuple[tuple[int, int], tuple[int, int]]],
    has_scans: bool,
) -> tuple[Block, ...]:
    if plan.outer == 0:
        return ()
    rest = [
        _steps(plan, number, axis, (0, axis.outputs), (0, axis.size), has_scans)
        for number, axis in enumerate(plan.axes)
        if number
    ]
    passes = [(_steps(plan, 0, plan.axes[0], *band, has_scans), *rest) for band in bands]
    flats = [_flat(plan, band_passes) for band_passes in passes]
    return tuple(
        Block(slice(start, stop), *band, band_passes, flat)
        for start, stop in _runs(plan.outer, planes)
        for band, band_passes, flat in zip(bands, passes, flats, strict=True)
    )


def _flat(plan: PoolPlan, passes: tuple[tuple[Step, ...], ...]) -> Flat | None:
    """Return the flat form of MAX or MIN without padding, if it is faster; else None.

    An output is computed at every position, and those without a window are dropped. This is
    faster for small strides, and for rows that are too short for a fast strided loop.
    """
    is_interior = all(
        steps and not any(step.others or step.reduced is not None for step in steps)
        for steps in passes
    )
    if not (plan.selects and is_interior and plan.inner == 1):
        return None
    strides = math.prod(steps[0].inputs[-1].step for steps in passes)
    if strides > 4:
        return None
    offsets, firsts = [], []
    for number, steps in enumerate(passes):
        distance = math.prod(axis.size for axis in plan.axes[number + 1 :])
        inputs = sorted((step.inputs[-1] for step in steps), key=lambda part: int(part.start))
        offsets.append(tuple((part.start - inputs[0].start) * distance for part in inputs))
        firsts.append(inputs[0])
    return Flat(tuple(offsets), (slice(None), *firsts))


def _steps(
    plan: PoolPlan,
    number: int,
    axis: Axis,
    outputs: tuple[int, int],
    inputs: tuple[int, int],
    has_scans: bool,
) -> tuple[Step, ...]:
    count = outputs[1] - outputs[0]
    if not count or plan.is_global or (has_scans and plan.scans(axis)):
        return ()
    if axis.slices > WINDOW_TAPS * axis.outputs:
        return _window_steps(plan, number, axis, outputs, inputs)
    taps = taps_between(axis, outputs, inputs)
    if plan.selects:
        taps = tuple(sorted(taps, key=lambda tap: tap.outputs.start - tap.outputs.stop))
    before = (slice(None),) * (number + 1)
    return tuple(
        Step(
            tap.number,
            (*before, tap.outputs),
            (*before, tap.inputs),
            tuple((*before, part) for part in _others(tap.outputs, count)),
        )
        for tap in taps
    )


def _window_steps(
    plan: PoolPlan, number: int, axis: Axis, outputs: tuple[int, int], inputs: tuple[int, int]
) -> tuple[Step, ...]:
    """Return a step for each window. Every element meets its windows in the order of its taps."""
    starts, (firsts, stops) = axis.starts(outputs), axis.tap_limits(outputs)
    firsts = np.maximum(firsts, -((starts - inputs[0]) // axis.dilation))
    stops = np.minimum(stops, (inputs[1] - 1 - starts) // axis.dilation + 1)
    before = (slice(None),) * (number + 1)
    steps = []
    for output, (start, first, stop) in enumerate(zip(starts, firsts, stops, strict=True)):
        if first < stop:
            begin, last = (start + tap * axis.dilation - inputs[0] for tap in (first, stop - 1))
            taps = np.arange(first, stop).reshape((-1,) + (1,) * (len(plan.axes) - number))
            served, taken = slice(output, output + 1), slice(begin, last + 1, axis.dilation)
            steps.append(Step(taps, (*before, served), (*before, taken), (), number + 1))
    is_ascending = isinstance(axis, AdaptiveAxis)
    return tuple(steps if is_ascending else reversed(steps))


def _others(outputs: slice, count: int) -> list[slice]:
    if outputs.step not in (None, 1):
        return [slice(0, count)]
    parts = (slice(0, outputs.start), slice(outputs.stop, count))
    return [part for part in parts if part.start < part.stop]


def _runs(total: int, length: int) -> list[tuple[int, int]]:
    return [(start, min(start + length, total)) for start in range(0, total, length)]
