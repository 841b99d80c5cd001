"""The taps of one window along each spatial axis, in plain integers.

Worked out from the spec, on purpose without the engine's plan, so that the explanation and
the engine can be held against each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pooling_engine import NamedPadding, PoolSpec
from pooling_engine.spec import Window

Taps = tuple[int, ...]  # the number of a tap along each of some axes

_AXIS_NAMES = {1: ("position",), 2: ("row", "column"), 3: ("depth", "row", "column")}


@dataclass(frozen=True, slots=True)
class AxisTaps:
    """The taps of one window along one spatial axis.

    Attributes:
        name: what the axis is called, such as "row".
        size: the elements along it.
        window: the window along it, a named padding resolved.
        outputs: the outputs along it.
        output: which of them is looked at.
    """

    name: str
    size: int
    window: Window
    outputs: int
    output: int = 0

    @property
    def names(self) -> str:
        """The plural of the name."""
        return self.name if self.name.startswith("D") else self.name + "s"

    @property
    def start(self) -> int:
        """The position of tap 0; negative in the padding before."""
        return self.output * self.window.stride - self.window.padding_before

    @property
    def on_elements(self) -> range:
        """The taps that are on elements."""
        first = max(0, -(self.start // self.window.dilation))
        last = min(self.window.kernel - 1, (self.size - 1 - self.start) // self.window.dilation)
        return range(first, max(first, last + 1))

    @property
    def elements(self) -> slice:
        """The elements that those taps are on."""
        taps = self.on_elements
        first, stop = self.position(taps.start), self.position(taps.stop)
        return slice(first, stop, self.window.dilation) if taps else slice(0, 0)

    @property
    def within_padding(self) -> int:
        """How many taps are on elements or in the padding, not beyond it."""
        end = self.size + self.window.padding_after
        return min(self.window.kernel, -((self.start - end) // self.window.dilation))

    def position(self, tap: int) -> int:
        """Where a tap is, counted from the first element."""
        return self.start + tap * self.window.dilation

    def is_beyond_padding(self, tap: int) -> bool:
        """Whether a tap is past the padding after: where ceil mode lets a window hang over."""
        return self.position(tap) >= self.size + self.window.padding_after

    def windows_on(self, tap: int) -> int:
        """How many windows, this one included, have a tap where `tap` is."""
        w = self.window
        common = math.gcd(w.stride, w.dilation)
        # Moving on by `outputs_apart` windows moves the cell back by `taps_apart` taps.
        taps_apart, outputs_apart = w.stride // common, w.dilation // common
        later = min(tap // taps_apart, (self.outputs - 1 - self.output) // outputs_apart)
        earlier = min((w.kernel - 1 - tap) // taps_apart, self.output // outputs_apart)
        return earlier + 1 + later


def resolve_axis(name: str, size: int, window: Window, spec: PoolSpec) -> AxisTaps:
    """Resolves the padding of one axis and counts its outputs (contract, section 2)."""
    k, s, d = window.kernel, window.stride, window.dilation
    if spec.padding in (NamedPadding.SAME_UPPER, NamedPadding.SAME_LOWER):
        outputs = -(-size // s)
        total = max(0, (outputs - 1) * s + window.extent - size)
        less, more = total // 2, total - total // 2
        pads = (less, more) if spec.padding is NamedPadding.SAME_UPPER else (more, less)
        return AxisTaps(name, size, Window(k, s, d, *pads), outputs)
    room = size + window.padding_before + window.padding_after - window.extent
    outputs = (-(-room // s) if spec.ceil_mode else room // s) + 1
    if spec.ceil_mode and (outputs - 1) * s >= size + window.padding_before:
        outputs -= 1
    return AxisTaps(name, size, window, outputs)


def resolve_axes(spec: PoolSpec, sizes: tuple[int, ...]) -> tuple[AxisTaps, ...]:
    """The axes of planes of those sizes, the first output of each looked at."""
    names, windows = axis_names(len(sizes)), spec.windows(len(sizes))
    return tuple(
        resolve_axis(name, size, window, spec)
        for name, size, window in zip(names, sizes, windows, strict=True)
    )


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
