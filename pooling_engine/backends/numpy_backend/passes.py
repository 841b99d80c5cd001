"""Passes along one spatial axis: fold taps into outputs, or spread outputs over taps."""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pooling_engine.backends.numpy_backend.block import Flat, Step

Array = NDArray[Any]
_MAX_REUSED_BYTES = 8 << 20
_local = threading.local()


def scratch(name: str, shape: tuple[int, ...], dtype: Any) -> Array:
    """Return an uninitialised array that this thread reuses under the same name.

    Page faults of fresh memory take longer than the arithmetic on it. Arrays that are in use at
    the same time need different names. Arrays over 8 MiB are not reused.
    """
    last: Array | None = _local.__dict__.get(name)
    if last is not None and last.shape == shape and last.dtype == dtype:
        return last
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    buffer: Array | None = None if last is None else last.base
    if buffer is None or buffer.nbytes < size:
        buffer = np.empty(size, np.uint8)
    array: Array = np.ndarray(shape, dtype, buffer)
    if buffer.nbytes <= _MAX_REUSED_BYTES:
        _local.__dict__[name] = array
    return array


def fold(
    combine: np.ufunc, source: Array, target: Array, steps: Sequence[Step], empty: float
) -> None:
    """Combine the taps of each window: ``target[i] = combine(tap 0 of source, tap 1, ..)``.

    Taps are combined in the order of the steps and in the target's type, so sums do not depend
    on the division into blocks. Outputs that no tap reaches become `empty`.
    """
    if not steps:
        target.fill(empty)
        return
    if steps[0].reduced is not None:
        target.fill(empty)
        for step in steps:
            target[step.outputs] = reduced(combine, source[step.inputs], step, target.dtype)
        return
    first, *rest = steps
    if rest and not first.others and not rest[0].others:
        second = rest.pop(0)
        combine(source[first.inputs], source[second.inputs], out=target, dtype=target.dtype)
    else:
        for other in first.others:
            target[other] = empty
        target[first.outputs] = source[first.inputs]
    for step in rest:
        part = target[step.outputs]
        combine(part, source[step.inputs], out=part)


def reduced(combine: np.ufunc, taps: Array, step: Step, dtype: Any = None) -> Array:
    """Combine the taps of a window in tap order; return those of a tap unchanged."""
    if step.reduced is None:
        return taps
    if combine is not np.add:
        extremes: Array = combine.reduce(taps, axis=step.reduced, dtype=dtype, keepdims=True)
        return extremes
    sums: Array = np.add.accumulate(taps, axis=step.reduced, dtype=dtype)  # `reduce` adds in pairs
    return sums.take([-1], axis=step.reduced)


def fold_flat(combine: np.ufunc, source: Array, target: Array, flat: Flat) -> None:
    """Fold a block along all spatial axes as one row, then extract the outputs.

    Windows that wrap around an edge are computed as well, and dropped. The taps are not combined
    in tap order, so this is for MAX and MIN only.
    """
    row, folded = source.reshape(-1), source
    pooled = [offsets for offsets in flat.offsets if len(offsets) > 1]
    for number, offsets in enumerate(pooled):  # two buffers in turns: one is read
        folded = scratch(f"flat{number % 2}", source.shape, source.dtype)
        length = row.size - offsets[-1]
        result = folded.reshape(-1)[:length]
        combine(row[:length], row[offsets[1] : offsets[1] + length], out=result)
        for offset in offsets[2:]:
            combine(result, row[offset : offset + length], out=result)
        row = result
    np.copyto(target, folded[flat.firsts])


def in_tap_order(steps: Sequence[Step]) -> Sequence[Step]:
    """Return the steps of a pass so that every element meets its windows in tap order."""
    if not steps or steps[0].reduced is not None:
        return steps
    return sorted(steps, key=operator.attrgetter("number"))


def spread(source: Array, target: Array, steps: Sequence[Step]) -> None:
    """Add each output to all inputs of its window: the transpose of a summing `fold`."""
    target.fill(0)
    for step in steps:
        part = target[step.inputs]
        np.add(part, source[step.outputs], out=part)
