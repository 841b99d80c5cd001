"""One spatial axis with every integer resolved: its outputs, and which taps reach where.

All arithmetic is on Python integers; nothing here allocates more than one entry per tap
or per output of one axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pooling_engine.enums import NamedPadding
from pooling_engine.errors import InvalidSpecError, UnsupportedError
from pooling_engine.spec import Window

MAX_TAPS_PER_AXIS = 65_536


class Tap(NamedTuple):
    """One tap of all windows of a range: which outputs it serves from which inputs.

    Attributes:
        number: the tap's number along the axis, from 0.
        outputs: the outputs whose window has this tap on an element, relative to the range.
        inputs: those elements, relative to the range; as many as outputs.
    """

    number: int
    outputs: slice
    inputs: slice


@dataclass(frozen=True, slots=True)
class Axis:
    """One spatial axis: its size, its window with the padding resolved, its outputs."""

    size: int
    window: Window
    outputs: int

    def starts(self) -> NDArray[np.int64]:
        """The position of the first tap of each output; negative in the padding before."""
        first = -self.window.padding_before
        return np.arange(self.outputs, dtype=np.int64) * self.window.stride + first

    def valid_counts(self) -> NDArray[np.int64]:
        """How many taps of each output are on an element."""
        starts, dilation = self.starts(), self.window.dilation
        first = np.maximum(0, -(starts // dilation))
        last = np.minimum(self.window.kernel - 1, (self.size - 1 - starts) // dilation)
        counts: NDArray[np.int64] = np.maximum(0, last - first + 1)
        return counts

    def counts_with_padding(self) -> NDArray[np.int64]:
        """How many taps of each output are before the end of the padding after.

        The overhang of ceil mode is beyond that end and does not count.
        """
        end = self.size + self.window.padding_after
        taps = -((self.starts() - end) // self.window.dilation)
        return np.minimum(np.maximum(taps, 0), self.window.kernel)

    def inputs_of(self, start: int, stop: int) -> tuple[int, int]:
        """The range of elements that the windows of outputs [start, stop) span."""
        w = self.window
        first = max(0, start * w.stride - w.padding_before)
        last = min(self.size, (stop - 1) * w.stride - w.padding_before + w.extent)
        return first, max(first, last)

    def outputs_of(self, start: int, stop: int) -> tuple[int, int]:
        """The range of outputs whose windows may reach elements [start, stop)."""
        w = self.window
        first = max(0, -((w.extent - 1 - start - w.padding_before) // w.stride))
        last = min(self.outputs, (stop - 1 + w.padding_before) // w.stride + 1)
        return first, max(first, last)


@lru_cache(maxsize=1024)
def taps_between(axis: Axis, outputs: tuple[int, int], inputs: tuple[int, int]) -> tuple[Tap, ...]:
    """The taps that join outputs of one range to elements of another, in tap order."""
    w = axis.window
    taps = []
    for number in tap_numbers(axis, outputs, inputs):
        offset = number * w.dilation - w.padding_before
        first = max(outputs[0], -((offset - inputs[0]) // w.stride))
        last = min(outputs[1] - 1, (inputs[1] - 1 - offset) // w.stride)
        if first <= last:
            begin = first * w.stride + offset - inputs[0]
            end = last * w.stride + offset - inputs[0] + 1
            taps.append(
                Tap(
                    number,
                    slice(first - outputs[0], last - outputs[0] + 1),
                    slice(begin, end, w.stride),
                )
            )
    return tuple(taps)


def tap_numbers(axis: Axis, outputs: tuple[int, int], inputs: tuple[int, int]) -> range:
    """The taps that can lie on an element at all, whatever the kernel claims."""
    w = axis.window
    lowest_start = outputs[0] * w.stride - w.padding_before
    highest_start = (outputs[1] - 1) * w.stride - w.padding_before
    first = max(0, -((highest_start - inputs[0]) // w.dilation))
    last = min(w.kernel - 1, (inputs[1] - 1 - lowest_start) // w.dilation)
    return range(first, last + 1)


def resolve_axis(number: int, size: int, window: Window, named: object, ceil_mode: bool) -> Axis:
    """Resolves the padding and counts the outputs of one axis (contract, section 2).

    Raises:
        InvalidSpecError: no window fits.
        UnsupportedError: the window reaches more taps than can be walked one by one.
    """
    if named in (NamedPadding.SAME_UPPER, NamedPadding.SAME_LOWER):
        outputs = -(-size // window.stride)
        total = max(0, (outputs - 1) * window.stride + window.extent - size)
        smaller, larger = total // 2, total - total // 2
        upper = named is NamedPadding.SAME_UPPER
        before, after = (smaller, larger) if upper else (larger, smaller)
        window = Window(window.kernel, window.stride, window.dilation, before, after)
    else:
        outputs = count_outputs(size, window, ceil_mode)
    if outputs < 1:
        padded = size + window.padding_before + window.padding_after
        raise InvalidSpecError(
            f"spatial axis {number} has no output: the window spans {window.extent} positions "
            f"(kernel {window.kernel}, dilation {window.dilation}), the padded input {padded}",
            field=f"kernel[{number}]",
        )
    axis = Axis(size, window, outputs)
    taps = len(tap_numbers(axis, (0, outputs), (0, size)))
    if taps > MAX_TAPS_PER_AXIS:
        raise UnsupportedError(
            f"the windows of spatial axis {number} reach {taps} taps; "
            f"at most {MAX_TAPS_PER_AXIS} along one axis are supported",
            field=f"kernel[{number}]",
        )
    return axis


def count_outputs(size: int, window: Window, ceil_mode: bool) -> int:
    """The number of outputs along one axis; may be less than 1.

    ``floor((size + before + after - extent) / stride) + 1``; ceil mode rounds up, but the
    last window must start at an element or in the padding before it.
    """
    room = size + window.padding_before + window.padding_after - window.extent
    if not ceil_mode:
        return room // window.stride + 1
    outputs = (room + window.stride - 1) // window.stride + 1
    if (outputs - 1) * window.stride >= size + window.padding_before:
        outputs -= 1
    return outputs
