"""One pass along one spatial axis: fold taps into outputs, or spread outputs over taps."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pooling_engine.backends.numpy_backend.block import Flat, Step

Array = NDArray[Any]
_KEEP_BYTES = 8 << 20
_local = threading.local()


def scratch(name: str, shape: tuple[int, ...], dtype: Any) -> Array:
    """An uninitialised array that this thread uses again under the same name.

    Fresh memory costs more than the arithmetic on it. Two arrays that are alive at once
    need two names. Arrays over 8 MiB are not kept.
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
    if buffer.nbytes <= _KEEP_BYTES:
        _local.__dict__[name] = array
    return array


def fold(
    combine: np.ufunc, source: Array, target: Array, steps: Sequence[Step], empty: float
) -> None:
    """Combines the taps of each window: ``target[i] = combine(tap 0 of source, tap 1, ..)``.

    Taps are taken in the order of the steps and arithmetic is in the target's type, so sums
    are the same however the outputs are split. Outputs that no tap reaches become `empty`.
    """
    if not steps:
        target.fill(empty)
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


def fold_flat(combine: np.ufunc, source: Array, target: Array, flat: Flat) -> None:
    """Folds a block along all spatial axes as one row, then takes the outputs out of it.

    Windows that wrap around an edge are computed with the rest, and left. The order of the
    taps is not kept, so this is for extremes.
    """
    row, folded = source.reshape(-1), source
    pooled = [offsets for offsets in flat.offsets if len(offsets) > 1]
    for number, offsets in enumerate(pooled):  # in two buffers by turns: one is read
        folded = scratch(f"flat{number % 2}", source.shape, source.dtype)
        length = row.size - offsets[-1]
        result = folded.reshape(-1)[:length]
        combine(row[:length], row[offsets[1] : offsets[1] + length], out=result)
        for offset in offsets[2:]:
            combine(result, row[offset : offset + length], out=result)
        row = result
    np.copyto(target, folded[flat.firsts])


def spread(source: Array, target: Array, steps: Sequence[Step]) -> None:
    """Adds each output to all inputs of its window: the transpose of a summing `fold`."""
    target.fill(0)
    for step in steps:
        part = target[step.inputs]
        np.add(part, source[step.outputs], out=part)
