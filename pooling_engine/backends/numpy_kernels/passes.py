"""One pass along one spatial axis: fold taps into outputs, or spread outputs over taps."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pooling_engine.geometry import Tap

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


def along(axis: int, part: slice) -> tuple[slice, ...]:
    """The index that takes `part` of spatial axis `axis` and all of the axes before it."""
    return (slice(None),) * (axis + 1) + (part,)


def fold(
    combine: np.ufunc, source: Array, target: Array, axis: int, taps: Sequence[Tap], empty: float
) -> None:
    """Combines the taps of each window: ``target[i] = combine(source[tap 0], source[tap 1] ..)``.

    Taps are taken in order and arithmetic is in the target's type, so sums are the same
    however the outputs are split. Outputs that no tap reaches become `empty`.
    """
    if not taps:
        target.fill(empty)
        return
    rest = taps[1:]
    if rest and _is_all(taps[0], target, axis) and _is_all(rest[0], target, axis):
        pair = (source[along(axis, taps[0].inputs)], source[along(axis, rest[0].inputs)])
        combine(*pair, out=target, dtype=target.dtype)
        rest = rest[1:]
    else:
        reached = taps[0].outputs
        target[along(axis, slice(0, reached.start))] = empty
        target[along(axis, slice(reached.stop, None))] = empty
        target[along(axis, reached)] = source[along(axis, taps[0].inputs)]
    for tap in rest:
        part = target[along(axis, tap.outputs)]
        combine(part, source[along(axis, tap.inputs)], out=part)


def spread(source: Array, target: Array, axis: int, taps: Sequence[Tap]) -> None:
    """Adds each output to all inputs of its window: the transpose of a summing `fold`."""
    target.fill(0)
    for tap in taps:
        part = target[along(axis, tap.inputs)]
        np.add(part, source[along(axis, tap.outputs)], out=part)


def _is_all(tap: Tap, target: Array, axis: int) -> bool:
    return bool(tap.outputs == slice(0, target.shape[axis + 1]))
