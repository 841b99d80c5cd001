"""The taps of one window along each spatial axis, in plain integers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Taps = tuple[int, ...]  # the number of a tap along each of some axes

_AXIS_NAMES = {1: ("position",), 2: ("row", "column"), 3: ("depth", "row", "column")}


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisTaps:
    """The taps of one window along one spatial axis, a named padding resolved.

    Attributes:
        name: what the axis is called, such as "row".
        size: the elements along it.
        outputs: the outputs along it.
        output: which of them is looked at.
        start: the position of tap 0; negative in the padding before.
        kernel: the taps of this window.
        largest: those of the largest window along the axis, by which taps are numbered.
        stride: the step from window to window; 0 where it differs.
        dilation: the step from tap to tap.
        padding_before: positions added before the first element.
        padding_after: positions added after the last element.
    """

    name: str
    size: int
    outputs: int
    output: int
    start: int
    kernel: int
    largest: int
    stride: int
    dilation: int = 1
    padding_before: int = 0
    padding_after: int = 0

    @property
    def names(self) -> str:
        """The plural of the name."""
        return self.name if self.name.startswith("D") else self.name + "s"

    @property
    def extent(self) -> int:
        """The positions from the first tap to the last."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def on_elements(self) -> range:
        """The taps that are on elements."""
        first = max(0, -(self.start // self.dilation))
        last = min(self.kernel - 1, (self.size - 1 - self.start) // self.dilation)
        return range(first, max(first, last + 1))

    @property
    def elements(self) -> slice:
        """The elements that those taps are on."""
        taps = self.on_elements
        first, stop = self.position(taps.start), self.position(taps.stop)
        return slice(first, stop, self.dilation) if taps else slice(0, 0)

    @property
    def within_padding(self) -> int:
        """How many taps are on elements or in the padding, not beyond it."""
        end = self.size + self.padding_after
        return min(self.kernel, -((self.start - end) // self.dilation))

    def position(self, tap: int) -> int:
        """Where a tap is, counted from the first element."""
        return self.start + tap * self.dilation

    def is_beyond_padding(self, tap: int) -> bool:
        """Whether a tap is past the padding after: where ceil mode lets a window hang over."""
        return self.position(tap) >= self.size + self.padding_after

    def windows_on(self, tap: int) -> int:
        """How many windows, this one included, have a tap where `tap` is."""
        if not self.stride:  # adaptive: from floor(at * o / L) up to ceil((at + 1) * o / L)
            at = self.position(tap)
            return -(-(at + 1) * self.outputs // self.size) - at * self.outputs // self.size
        common = math.gcd(self.stride, self.dilation)
        # Moving on by `outputs_apart` windows moves the cell back by `taps_apart` taps.
        taps_apart, outputs_apart = self.stride // common, self.dilation // common
        later = min(tap // taps_apart, (self.outputs - 1 - self.output) // outputs_apart)
        earlier = min((self.kernel - 1 - tap) // taps_apart, self.output // outputs_apart)
        return earlier + 1 + later


def place(axes: Sequence[AxisTaps], taps: Taps) -> str:
    """Where taps are in the input, such as "row 2, column 6"."""
    return ", ".join(f"{a.name} {a.position(tap)}" for a, tap in zip(axes, taps, strict=True))


def ravel(numbers: Sequence[int], sizes: Sequence[int]) -> int:
    """The row-major number of a place in an array of those sizes."""
    total = 0
    for number, size in zip(numbers, sizes, strict=True):
        total = total * size + number
    return total


def unravel(number: int, sizes: Sequence[int]) -> tuple[int, ...]:
    """The place in an array of those sizes with that row-major number."""
    places = []
    for size in reversed(sizes):
        number, place = divmod(number, size)
        places.append(place)
    return tuple(reversed(places))


def axis_names(count: int) -> tuple[str, ...]:
    """What the spatial axes are called, outermost first."""
    leading = tuple(f"D{number}" for number in range(1, count - 1))
    return _AXIS_NAMES.get(count, (*leading, "row", "column"))
