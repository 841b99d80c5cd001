"""Geometry of one spatial axis: outputs, windows and taps, with every integer resolved.

A tap is one position of a window. It lies on an element of the input or in the padding.

All arithmetic is on Python integers. Nothing here allocates more than one entry per tap or
per output of one axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pooling_engine.errors import InvalidSpecError, UnsupportedError
from pooling_engine.specs.enums import NamedPadding
from pooling_engine.specs.window import Window

MAX_STEPS_PER_AXIS = 65_536
SCANNED_TAPS, SCANNED_STRIDES = 9, 4  # least kernel of a scan, and in strides (docs/adr/0015)
Positions = NDArray[np.int64]
Range = tuple[int, int]


class Tap(NamedTuple):
    """One tap of the windows of a range of outputs, and the elements on which it lies.

    Attributes:
        number: number of the tap along the axis, from 0.
        outputs: outputs whose window has this tap on an element, relative to the range.
        inputs: those elements, relative to the range of inputs; as many as outputs.
    """

    number: int
    outputs: slice
    inputs: slice


@dataclass(frozen=True, slots=True)
class SlidingAxis:
    """Axis with windows of one size at regular steps; the padding is resolved."""

    size: int
    window: Window
    outputs: int

    @property
    def kernel(self) -> int:
        """Number of taps of a window."""
        return self.window.kernel

    @property
    def dilation(self) -> int:
        """Step from tap to tap."""
        return self.window.dilation

    @property
    def reach(self) -> int:
        """Number of taps that lie on an element in at least one window."""
        return len(self._tap_numbers((0, self.outputs), (0, self.size)))

    @property
    def slices(self) -> int:
        """Upper bound of the number of `Tap` items that `taps` returns."""
        return self.reach

    @property
    def is_scanned(self) -> bool:
        """True if windows are summed by a scan of blocks, because they are large and overlap.

        Row bands of a plane have the same windows, so the rule must not depend on the size.
        """
        w = self.window
        return w.dilation == 1 and w.kernel >= max(SCANNED_TAPS, SCANNED_STRIDES * w.stride)

    def starts(self, outputs: Range | None = None) -> Positions:
        """Return the position of the first tap of each output of a range; all by default.

        Positions in the padding before the first element are negative.
        """
        first = -self.window.padding_before
        numbers = np.arange(*(outputs or (0, self.outputs)), dtype=np.int64)
        return numbers * self.window.stride + first

    def tap_limits(self, outputs: Range | None = None) -> tuple[Positions, Positions]:
        """Return, for each output, the first tap on an element and the one after the last."""
        starts, dilation = self.starts(outputs), self.dilation
        first = np.maximum(0, -(starts // dilation))
        stop = np.minimum(self.kernel, (self.size - 1 - starts) // dilation + 1)
        return first, np.maximum(first, stop)

    def counts_with_padding(self) -> Positions:
        """Return the number of taps of each output, with padding, without the ceil-mode overhang.

        The overhang lies beyond the end of the padding.
        """
        end = self.size + self.window.padding_after
        taps = -((self.starts() - end) // self.dilation)
        return np.minimum(np.maximum(taps, 0), self.kernel)

    def inputs_of(self, start: int, stop: int) -> Range:
        """Return the range of elements that the windows of outputs [start, stop) span."""
        w = self.window
        first = max(0, start * w.stride - w.padding_before)
        last = min(self.size, (stop - 1) * w.stride - w.padding_before + w.extent)
        return first, max(first, last)

    def outputs_of(self, start: int, stop: int) -> Range:
        """Return the range of outputs whose windows may reach elements [start, stop)."""
        w = self.window
        first = max(0, -((w.extent - 1 - start - w.padding_before) // w.stride))
        last = min(self.outputs, (stop - 1 + w.padding_before) // w.stride + 1)
        return first, max(first, last)

    def taps(self, outputs: Range, inputs: Range) -> list[Tap]:
        """Return the taps from outputs of one range to elements of another, in tap order."""
        w = self.window
        taps = []
        for number in self._tap_numbers(outputs, inputs):
            offset = number * w.dilation - w.padding_before
            first = max(outputs[0], -((offset - inputs[0]) // w.stride))
            last = min(outputs[1] - 1, (inputs[1] - 1 - offset) // w.stride)
            if first <= last:
                begin = first * w.stride + offset - inputs[0]
                end = last * w.stride + offset - inputs[0] + 1
                served = slice(first - outputs[0], last - outputs[0] + 1)
                taps.append(Tap(number, served, slice(begin, end, w.stride)))
        return taps

    def _tap_numbers(self, outputs: Range, inputs: Range) -> range:
        w = self.window
        lowest_start = outputs[0] * w.stride - w.padding_before
        highest_start = (outputs[1] - 1) * w.stride - w.padding_before
        first = max(0, -((highest_start - inputs[0]) // w.dilation))
        last = min(w.kernel - 1, (inputs[1] - 1 - lowest_start) // w.dilation)
        return range(first, last + 1)


@dataclass(frozen=True, slots=True)
class AdaptiveAxis:
    """Axis divided among its outputs: output i has elements floor(i*L/o) to ceil((i+1)*L/o).

    The windows repeat: with g the greatest common divisor of size and outputs, the windows of
    outputs i and ``i + outputs/g`` have the same size and are ``size/g`` elements apart.
    """

    size: int
    outputs: int
    kernel: int
    dilation: int = 1
    is_scanned: bool = False

    @property
    def reach(self) -> int:
        """Number of taps of the largest window."""
        return self.kernel

    @property
    def slices(self) -> int:
        """Upper bound of the number of `Tap` items that `taps` returns."""
        return (self.size + self.outputs) // math.gcd(self.size, self.outputs)

    def starts(self, outputs: Range | None = None) -> Positions:
        """Return the first element of the window of each output of a range; all by default."""
        numbers = np.arange(*(outputs or (0, self.outputs)), dtype=np.int64)
        return numbers * self.size // self.outputs

    def tap_limits(self, outputs: Range | None = None) -> tuple[Positions, Positions]:
        """Return, for each output, its first tap, which is 0, and the one after its last."""
        begin, end = outputs or (0, self.outputs)
        ends = -(-np.arange(begin + 1, end + 1, dtype=np.int64) * self.size // self.outputs)
        return np.zeros_like(ends), ends - self.starts(outputs)

    def counts_with_padding(self) -> Positions:
        """Return the number of taps of each output; there is no padding."""
        return self.tap_limits()[1]

    def inputs_of(self, start: int, stop: int) -> Range:
        """Return the range of elements that the windows of outputs [start, stop) span."""
        return start * self.size // self.outputs, -(-stop * self.size // self.outputs)

    def outputs_of(self, start: int, stop: int) -> Range:
        """Return the range of outputs whose windows reach elements [start, stop)."""
        return start * self.outputs // self.size, -(-stop * self.outputs // self.size)

    def taps(self, outputs: Range, inputs: Range) -> list[Tap]:
        """Return the taps from outputs of one range to elements of another, in tap order."""
        common = math.gcd(self.size, self.outputs)
        period, step = self.outputs // common, self.size // common
        taps = []
        for kind in range(period):
            start, stop = self.inputs_of(kind, kind + 1)
            for position in range(start, stop):
                first = max(-((kind - outputs[0]) // period), -((position - inputs[0]) // step))
                last = min((outputs[1] - 1 - kind) // period, (inputs[1] - 1 - position) // step)
                if first <= last:
                    served = _every(kind - outputs[0], period, first, last)
                    taken = _every(position - inputs[0], step, first, last)
                    taps.append(Tap(position - start, served, taken))
        return taps


Axis = SlidingAxis | AdaptiveAxis


def is_spanned(axis: Axis) -> bool:
    """Return whether one window spans an axis without padding."""
    if not isinstance(axis, SlidingAxis) or axis.outputs > 1 or axis.kernel != axis.size:
        return False
    window = axis.window
    is_dense = window.dilation == 1 or window.kernel == 1
    return is_dense and window.padding_before == window.padding_after == 0


def _every(start: int, step: int, first: int, last: int) -> slice:
    """Return the positions ``start + i * step`` for i from `first` to `last`."""
    return slice(start + first * step, start + last * step + 1, step)


@lru_cache(maxsize=1024)
def taps_between(axis: Axis, outputs: Range, inputs: Range) -> tuple[Tap, ...]:
    """Return the taps from outputs of one range to elements of another, in order per output."""
    return tuple(axis.taps(outputs, inputs))


def resolve_sliding(
    number: int, size: int, window: Window, named: object, ceil_mode: bool
) -> SlidingAxis:
    """Resolve the padding and count the outputs of one axis (see `Window` in pooling.proto).

    Args:
        number: number of the spatial axis, for errors.
        size: size of the axis.
        window: the window, with zero padding if the padding is named.
        named: padding of the spec.
        ceil_mode: whether to round the number of outputs up.

    Raises:
        InvalidSpecError: no window fits.
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
            f"(kernel {window.kernel}, dilation {window.dilation}), "
            f"but the padded input has {padded}",
            field=f"kernel[{number}]",
        )
    return SlidingAxis(size, window, outputs)


def check_steps(number: int, axis: Axis, field: str) -> None:
    """Check that an axis has few windows, or windows with few different taps.

    The NumPy backend takes a step for each window or for each tap, whichever are fewer.

    Args:
        number: number of the spatial axis, for errors.
        axis: the axis.
        field: the argument that determines the windows, for errors.

    Raises:
        UnsupportedError: there are more of both than `MAX_STEPS_PER_AXIS`.
    """
    if min(axis.slices, axis.outputs) > MAX_STEPS_PER_AXIS:
        raise UnsupportedError(
            f"spatial axis {number} has {axis.outputs} windows with {axis.slices} different taps; "
            f"at most {MAX_STEPS_PER_AXIS} windows or {MAX_STEPS_PER_AXIS} taps along one axis "
            "are supported",
            field=f"{field}[{number}]",
        )


def resolve_adaptive(number: int, size: int, outputs: int) -> Axis:
    """Return the windows that divide one axis among `outputs` outputs.

    See `AdaptiveWindows` in pooling.proto.

    Args:
        number: number of the spatial axis, for errors.
        size: size of the axis.
        outputs: number of outputs.
    """
    if size % outputs == 0:
        return SlidingAxis(size, Window(size // outputs, size // outputs), outputs)
    common = math.gcd(size, outputs)
    # Window i starts at the floor of i*size/outputs. The longest one has the largest remainder of
    # that division, outputs - common, which some window has.
    kernel = -(-(outputs - common + size) // outputs)
    return AdaptiveAxis(size, outputs, kernel)


def count_outputs(size: int, window: Window, ceil_mode: bool) -> int:
    """Return the number of outputs along one axis; may be less than 1.

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
