"""One window, looked at closely: which taps it has, on which elements, with which values.

Everything here is worked out from the spec in plain integers, on purpose without the
engine's plan, so that `explain` and the engine can be held against each other.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pooling_engine import InvalidSpecError, InvalidTensorError, Layout, NamedPadding, PoolSpec
from pooling_engine.checks import as_tensor
from pooling_engine.plan import make_plan
from pooling_engine.spec import Window

Array = NDArray[Any]
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
        outputs = math.ceil(size / s)
        total = max(0, (outputs - 1) * s + window.extent - size)
        less, more = total // 2, total - total // 2
        pads = (less, more) if spec.padding is NamedPadding.SAME_UPPER else (more, less)
        return AxisTaps(name, size, Window(k, s, d, *pads), outputs)
    room = size + window.padding_before + window.padding_after - window.extent
    outputs = (-(-room // s) if spec.ceil_mode else room // s) + 1
    if spec.ceil_mode and (outputs - 1) * s >= size + window.padding_before:
        outputs -= 1
    return AxisTaps(name, size, window, outputs)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One window of one plane.

    Attributes:
        spec: what is computed.
        at: the output looked at, an index into the output.
        input_shape: the shape of the tensor, in the caller's layout.
        output_shape: the shape of the output, in the same layout.
        axes: the window along each spatial axis.
        plane: the plane, of shape (1, 1, D1..Dn) or, channels last, (1, D1..Dn, 1).
        region: the values of the taps on elements, one axis for each spatial axis.
        upstream: the gradient of the output looked at, an element of the tensor's type.
        is_upstream_given: whether the caller gave it; else it is 1.
    """

    spec: PoolSpec
    at: tuple[int, ...]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    axes: tuple[AxisTaps, ...]
    plane: Array
    region: Array
    upstream: Any
    is_upstream_given: bool

    @property
    def values(self) -> list[float]:
        """The values of the taps on elements in row-major order; float64 holds each exactly."""
        return [float(value) for value in self.region.ravel()]

    @property
    def taps(self) -> int:
        """How many taps the window has, padded ones included."""
        return math.prod(axis.window.kernel for axis in self.axes)

    def tap(self, cell: int) -> Taps:
        """The tap that is on a cell of the region; cells are numbered in row-major order."""
        places = unravel(cell, self.region.shape)
        return tuple(a.on_elements[place] for a, place in zip(self.axes, places, strict=True))

    def tap_number(self, cell: int) -> int:
        """The number of that tap in the window, row by row from 0, padded taps included."""
        return ravel(self.tap(cell), [axis.window.kernel for axis in self.axes])

    def cell(self, tap: Taps) -> int | None:
        """The cell of the region that a tap is on, or None in the padding."""
        if not all(t in axis.on_elements for axis, t in zip(self.axes, tap, strict=True)):
            return None
        places = [t - axis.on_elements.start for axis, t in zip(self.axes, tap, strict=True)]
        return ravel(places, self.region.shape)


def look_at(x: Array, spec: PoolSpec, at: tuple[int, ...], output_gradient: Array | None) -> View:
    """The window of output `at` of tensor `x`.

    Raises:
        InvalidSpecError: the spec does not fit the tensor, or `at` is no index of the output.
        InvalidTensorError: the tensor or the gradient has a wrong shape or element type.
        UnsupportedError: legal, but not built.
    """
    x = as_tensor(x, "input")
    plan = make_plan(spec, x.shape, x.dtype)
    is_last = spec.layout is Layout.CHANNELS_LAST
    sizes = x.shape[1:-1] if is_last else x.shape[2:]
    names = axis_names(len(sizes))
    at = _checked(at, plan.output_shape, ("n", *names, "c") if is_last else ("n", "c", *names))
    upstream = _upstream(output_gradient, x.dtype, plan.output_shape)
    outputs = at[1:-1] if is_last else at[2:]
    axes = tuple(
        AxisTaps(axis.name, axis.size, axis.window, axis.outputs, output)
        for axis, output in zip(resolve_axes(spec, sizes), outputs, strict=True)
    )
    channel = slice(at[-1], at[-1] + 1) if is_last else slice(at[1], at[1] + 1)
    plane = x[at[0] : at[0] + 1, ..., channel] if is_last else x[at[0] : at[0] + 1, channel]
    return View(
        spec=spec,
        at=at,
        input_shape=plan.input_shape,
        output_shape=plan.output_shape,
        axes=axes,
        plane=plane,
        region=plane.reshape(sizes)[tuple(axis.elements for axis in axes)],
        upstream=x.dtype.type(1) if upstream is None else upstream[at],
        is_upstream_given=upstream is not None,
    )


def resolve_axes(spec: PoolSpec, sizes: tuple[int, ...]) -> tuple[AxisTaps, ...]:
    """The axes of planes of those sizes, the first output of each looked at."""
    names, windows = axis_names(len(sizes)), spec.windows(len(sizes))
    return tuple(
        resolve_axis(name, size, window, spec)
        for name, size, window in zip(names, sizes, windows, strict=True)
    )


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


def _checked(at: Any, shape: tuple[int, ...], names: tuple[str, ...]) -> tuple[int, ...]:
    """The coordinates as integers, each inside the output."""
    try:
        coordinates = tuple(operator.index(coordinate) for coordinate in at)
    except TypeError:
        raise InvalidSpecError(
            f"at is {at!r}; it must be {len(shape)} integers: {', '.join(names)}", field="at"
        ) from None
    if len(coordinates) != len(shape):
        raise InvalidSpecError(
            f"at is {coordinates}, {len(coordinates)} coordinates; the output has shape {shape}, "
            f"so it must be {len(shape)}: {', '.join(names)}",
            field="at",
        )
    for number, (name, coordinate, size) in enumerate(zip(names, coordinates, shape, strict=True)):
        if not 0 <= coordinate < size:
            legal = f"from 0 to {size - 1}" if size else "nothing: the batch is empty"
            raise InvalidSpecError(
                f"at is {coordinates}; the output has shape {shape}, so coordinate {number} "
                f"({name}) is {coordinate} but must be {legal}",
                field="at",
            )
    return coordinates


def _upstream(gradient: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array | None:
    """The output gradient, once it fits the output."""
    if gradient is None:
        return None
    gradient = as_tensor(gradient, "output_gradient")
    if gradient.shape != shape or gradient.dtype != dtype:
        raise InvalidTensorError(
            f"output_gradient is {gradient.dtype.name} of shape {gradient.shape}; "
            f"the output is {dtype.name} of shape {shape}",
            field="output_gradient",
        )
    return gradient
