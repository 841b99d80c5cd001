"""One pass along one spatial axis: fold taps into outputs, or spread outputs over taps."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pooling_engine.backends.numpy_kernels.block import Step

Array = NDArray[Any]
_KEEP_BYTES = 8 << 20
_local = threading.local()


def scratch(name: str, shape: Sequence[int], dtype: Any) -> Array:
    """An uninitialised array that this thread uses again under the same name.

    Fresh memory costs more than the arithmetic on it. Two arrays that are alive at once
    need two names. Arrays over 8 MiB are not kept.
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    buffers: dict[str, Array] = _local.__dict__.setdefault("buffers", {})
    buffer = buffers.get(name)
    if buffer is None or buffer.nbytes < size:
        buffer = np.empty(size, np.uint8)
        if size <= _KEEP_BYTES:
            buffers[name] = buffer
    array: Array = buffer[:size].view(dtype).reshape(shape)
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
        target[first.outputs] = source[first.inputs]
        for other in first.others:
            target[other] = empty
    for step in rest:
        part = target[step.outputs]
        combine(part, source[step.inputs], out=part)


def can_fold_flat(source: Array, passes: Sequence[Sequence[Step]]) -> bool:
    """Whether `fold_flat` gives the same as a `fold` along each axis, and sooner.

    It needs windows that are all on elements. It computes an output at every position, so it
    pays where strides are small and rows are too short to keep a strided loop busy.
    """
    strides = math.prod(steps[0].inputs[-1].step for steps in passes if steps)
    is_interior = all(steps and not any(step.others for step in steps) for steps in passes)
    is_short = source.shape[-1] == 1
    return is_interior and is_short and strides <= 4 and bool(source.flags.c_contiguous)


def fold_flat(
    combine: np.ufunc, source: Array, target: Array, passes: Sequence[Sequence[Step]]
) -> None:
    """Folds along all spatial axes over the block as one row, then takes the outputs.

    Windows at positions where none belongs wrap around the edges; they are computed and
    left. The order of the taps is free, so this is for extremes.
    """
    row, distance = source.reshape(-1), math.prod(source.shape[1:])
    folded = source
    for axis, steps in enumerate(passes):
        distance //= source.shape[axis + 1]
        starts = sorted(step.inputs[-1].start for step in steps)
        offsets = [(start - starts[0]) * distance for start in starts]
        length = row.size - offsets[-1]
        folded = scratch(f"flat{axis % 2}", source.shape, source.dtype)
        result = folded.reshape(-1)[:length]
        if len(offsets) == 1:
            result[:] = row
        else:
            combine(row[:length], row[offsets[1] : offsets[1] + length], out=result)
        for offset in offsets[2:]:
            combine(result, row[offset : offset + length], out=result)
        row = result
    # Each output stands where the first tap of its window does.
    firsts = tuple(min((step.inputs[-1] for step in steps), key=_start) for steps in passes)
    target[...] = folded[(slice(None), *firsts)]


def _start(part: slice) -> int:
    return int(part.start)


def spread(source: Array, target: Array, steps: Sequence[Step]) -> None:
    """Adds each output to all inputs of its window: the transpose of a summing `fold`."""
    target.fill(0)
    for step in steps:
        part = target[step.inputs]
        np.add(part, source[step.outputs], out=part)
