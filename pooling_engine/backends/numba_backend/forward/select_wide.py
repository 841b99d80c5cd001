"""Selection from windows of many taps: blocks of taps that double from pass to pass.

A block of 2n taps is two blocks of n, and the last two blocks of a window may overlap. So windows
of k taps take about log2(k) comparisons an element, all in vectors. The earlier of two blocks is
kept if both have the extreme, so the first of equal taps is selected.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pooling_engine.backends.numba_backend.forward.candidates import (
    Candidates,
    copy,
    further,
    of_kind,
    put_candidate,
)
from pooling_engine.backends.numba_backend.forward.select_axis import select
from pooling_engine.backends.numba_backend.language.arguments import AxisRow
from pooling_engine.backends.numba_backend.language.axes import TileSizes, axis_at
from pooling_engine.backends.numba_backend.language.jit import part, routine
from pooling_engine.backends.numba_backend.language.pointers import Pointer, get
from pooling_engine.backends.numba_backend.language.selection import Operation, padding_of

_FIRST_BLOCK = 4  # taps of the first blocks; wide windows have more


class Passes(NamedTuple):
    """Memory for the candidates of two passes."""

    one: Candidates
    other: Candidates


@routine
def room_of_passes(axes: Pointer, sizes: TileSizes) -> int:
    """Return the number of candidates that each pass needs room for, 0 if no axis is wide."""
    room, inner, outer = 0, sizes.inner, sizes.span * sizes.row // sizes.inner
    for a in range(sizes.axes - 1, -1, -1):
        axis = axis_at(axes, a)
        size = sizes.span if a == 0 else axis.size
        outer //= size
        if axis.is_wide:
            blocks = outer if inner == 1 and a == sizes.axes - 1 else 1
            room = max(room, blocks * (size + 2 * axis.taps) * inner)
        inner *= axis.outputs
    return room


@routine
def select_wide_rows(
    source: Candidates,
    target: Candidates,
    axis: AxisRow,
    ranges: Pointer,
    rows: int,
    passes: Passes,
    operation: Operation,
) -> None:
    """Select along the last axis from rows of single elements, like `select_rows`."""
    start, last_start = get(ranges, 0), get(ranges, axis.outputs - 1)
    before, after = max(0, -start), max(0, last_start + axis.taps - axis.size)
    pitch = before + axis.size + after
    padded = of_kind(source, passes.one)
    for row in range(rows):
        elements = further(source, row * axis.size)
        _pad(elements, further(padded, row * pitch), before, axis.size, after, operation)
    blocks, taps = _blocks(padded, passes, rows * pitch, 1, axis.taps, 1, operation)
    for row in range(rows):
        results = further(target, row * axis.outputs)
        first = further(blocks, row * pitch + before + start)
        _join(
            first, axis.taps - taps, axis.stride, results, axis.taps - taps, axis.outputs, operation
        )


@routine
def select_wide_vectors(
    source: Candidates,
    target: Candidates,
    axis: AxisRow,
    ranges: Pointer,
    begin: int,
    end: int,
    low: int,
    high: int,
    length: int,
    weight: int,
    passes: Passes,
    operation: Operation,
) -> None:
    """Select outputs `begin` to `end` from vectors of `length` candidates, like `select_vectors`.

    Args:
        source: candidates at position `low`.
        target: candidates at output `begin`.
        low: first position of the axis that `source` has.
        high: one after the last.
    """
    start, last_start = get(ranges, begin), get(ranges, end - 1)
    before, after = max(0, low - start), max(0, last_start + axis.taps - high)
    padded, origin = of_kind(source, passes.one), low - before
    if before or after:
        size = (high - low) * length
        _pad(source, padded, before * length, size, after * length, operation)
    else:
        padded = source
    total = (high + after - origin) * length
    blocks, taps = _blocks(padded, passes, total, length, axis.taps, weight, operation)
    rest = axis.taps - taps
    first, run = further(blocks, (start - origin) * length), 1
    if axis.stride == 1:
        run = end - begin  # all outputs as one
    for output in range(0, end - begin, run):
        taps_of_output = further(first, output * axis.stride * length)
        results = further(target, output * length)
        _join(taps_of_output, rest * length, 1, results, rest * weight, run * length, operation)


@part
def _pad(
    source: Candidates,
    target: Candidates,
    before: int,
    count: int,
    after: int,
    operation: Operation,
) -> None:
    """Copy `count` candidates, with padding before and after."""
    padding = padding_of(get(target.values, 0), operation)
    for i in range(before):
        put_candidate(target, i, padding, np.int32(0))
    copy(source, further(target, before), count)
    for i in range(before + count, before + count + after):
        put_candidate(target, i, padding, np.int32(0))


@routine
def _blocks(
    source: Candidates,
    passes: Passes,
    length: int,
    step: int,
    taps: int,
    weight: int,
    operation: Operation,
) -> tuple[Candidates, int]:
    """Select from blocks of taps until two blocks are a window.

    Args:
        source: candidates; may be `passes.one`.
        length: number of candidates.
        step: distance from tap to tap.
        taps: taps of a window.
        weight: weight of the axis in the number of a tap.

    Returns:
        The extremes of the blocks that begin at each candidate, and the taps of a block.
    """
    length -= (_FIRST_BLOCK - 1) * step
    blocks, spare, size = passes.other, passes.one, _FIRST_BLOCK
    select(source, step, 1, blocks, 0, weight, length, _FIRST_BLOCK, False, operation)
    while 2 * size < taps:
        length -= size * step
        _join(blocks, size * step, 1, spare, size * weight, length, operation)
        blocks, spare, size = spare, blocks, 2 * size
    return blocks, size


@routine
def _join(
    blocks: Candidates,
    step: int,
    stride: int,
    target: Candidates,
    weight: int,
    length: int,
    operation: Operation,
) -> None:
    """Select `length` outputs, `stride` apart, from two blocks each that are `step` apart.

    Args:
        weight: difference of the tap numbers of two blocks.
    """
    if stride == 1:
        select(blocks, step, 1, target, 0, weight, length, 2, False, operation)
    elif stride == 2:
        select(blocks, step, 2, target, 0, weight, length, 2, False, operation)
    else:
        select(blocks, step, stride, target, 0, weight, length, 2, False, operation)
