"""Sums of large windows along one axis, at a cost that does not grow with the window.

The axis, with its padding, is cut into blocks of the window's length. A window is one block, or the
end of one and the beginning of the next: the sum of a suffix of the one and a prefix of the other.
Nothing is subtracted. Van Herk, Gil and Werman have the same method for extremes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pooling_engine.backends.numpy_backend.passes import Array, scratch
from pooling_engine.plans.geometry import Range, SlidingAxis


def scan(
    source: Array, target: Array, number: int, axis: SlidingAxis, outputs: Range, inputs: Range
) -> None:
    """Sum the windows along one axis, in the type of the target.

    Args:
        source: elements; along the axis, those of the range `inputs`.
        target: sums; along the axis, those of the range `outputs`.
        number: number of the spatial axis.
        axis: the axis; its windows have no dilation.
        outputs: range of outputs.
        inputs: range of elements that their windows span.
    """
    source, target = np.moveaxis(source, number + 1, 0), np.moveaxis(target, number + 1, 0)
    kernel, stride = axis.window.kernel, axis.window.stride
    output = outputs[0]
    while output < outputs[1]:
        # Positions are counted from the start of the first window.
        begin = output * stride // kernel * kernel
        end = min(outputs[1], -(-(begin + kernel) // stride))
        starts = np.arange(output, end) * stride
        results = target[output - outputs[0] : end - outputs[0]]
        output = end
        if starts[0] == begin:
            results[0] = _prefixes(source, target, axis, inputs, begin)[1][-1]
            results, starts = results[1:], starts[1:]
        if len(starts):
            low, suffixes = _suffixes(source, target, axis, inputs, begin)
            results[...] = suffixes[_places(starts - low, suffixes)]
            low, prefixes = _prefixes(source, target, axis, inputs, begin + kernel)
            results += prefixes[_places(starts + kernel - low, prefixes)]


def _block(source: Array, axis: SlidingAxis, inputs: Range, begin: int) -> tuple[int, Array]:
    """Return the position of the first given element of a block, and all of them."""
    before = axis.window.padding_before
    low = min(max(begin - before, inputs[0]), inputs[1])
    high = max(low, min(begin + axis.kernel - before, inputs[1]))
    return low + before, source[low - inputs[0] : high - inputs[0]]


def _prefixes(
    source: Array, target: Array, axis: SlidingAxis, inputs: Range, begin: int
) -> tuple[int, Array]:
    """Return the position of the first element of a block, and sums of its first 0, 1, ..."""
    low, elements = _block(source, axis, inputs, begin)
    sums = scratch("prefixes", (len(elements) + 1, *target.shape[1:]), target.dtype)
    sums[0] = 0
    np.add.accumulate(elements, axis=0, dtype=target.dtype, out=sums[1:])
    return low, sums


def _suffixes(
    source: Array, target: Array, axis: SlidingAxis, inputs: Range, begin: int
) -> tuple[int, Array]:
    """Return the position of the first element of a block, and sums from each of them, and 0."""
    low, elements = _block(source, axis, inputs, begin)
    sums = scratch("suffixes", (len(elements) + 1, *target.shape[1:]), target.dtype)
    sums[-1] = 0
    np.add.accumulate(elements[::-1], axis=0, dtype=target.dtype, out=sums[-2::-1])
    return low, sums


def _places(places: NDArray[np.int64], sums: Array) -> NDArray[np.int64]:
    return np.clip(places, 0, len(sums) - 1)
