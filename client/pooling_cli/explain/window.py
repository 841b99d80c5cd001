"""One window of a tensor: its taps, and the values under them."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pooling_cli.explain.axes import AxisTaps, Taps, axis_names, ravel, unravel
from pooling_cli.explain.parameters import Parameters, work_out_parameters
from pooling_cli.explain.resolve import resolve_axes
from pooling_engine import InvalidSpecError, InvalidTensorError, Layout, PoolPlan, PoolSpec
from pooling_engine.calls.checks import as_tensor
from pooling_engine.dtypes import FLOATS

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One window of one plane.

    Attributes:
        spec: what is computed.
        plan: the engine's plan of it.
        parameters: the same, worked out here.
        at: the output looked at, an index into the output.
        axes: the window along each spatial axis.
        plane: the plane, of shape (1, 1, D1..Dn) or, channels last, (1, D1..Dn, 1).
        region: the values of the taps on elements, one axis for each spatial axis.
        upstream: the gradient of the output looked at, an element of the tensor's type.
        is_upstream_given: whether the caller gave it; else it is 1.
    """

    spec: PoolSpec
    plan: PoolPlan
    parameters: Parameters
    at: tuple[int, ...]
    axes: tuple[AxisTaps, ...]
    plane: Array
    region: Array
    upstream: Any
    is_upstream_given: bool

    @property
    def values(self) -> list[float]:
        """The values of the taps on elements in row-major order, each exact.

        Integers stay integers; float64 holds the elements of every other type.
        """
        number = float if self.has_gradient else int
        return [number(value) for value in self.region.ravel()]

    @property
    def has_gradient(self) -> bool:
        """Whether there is a backward step: not for integers."""
        return self.plan.dtype in FLOATS

    @property
    def taps(self) -> int:
        """How many taps the window has, padded ones included."""
        return math.prod(axis.kernel for axis in self.axes)

    def tap(self, cell: int) -> Taps:
        """The tap that is on a cell of the region; cells are numbered in row-major order."""
        places = unravel(cell, self.region.shape)
        return tuple(a.on_elements[place] for a, place in zip(self.axes, places, strict=True))

    def tap_number(self, cell: int) -> int:
        """The number of that tap, row by row from 0 as in the largest window, with padding."""
        return ravel(self.tap(cell), [axis.largest for axis in self.axes])

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
        InternalError: the engine's plan says something else.
    """
    x = as_tensor(x, "input")
    plan = spec.plan(x.shape, x.dtype)
    parameters = work_out_parameters(spec, plan)
    is_last = spec.layout is Layout.CHANNELS_LAST
    sizes = x.shape[1:-1] if is_last else x.shape[2:]
    at = _checked(at, plan.output_shape, coordinate_names(spec, len(sizes)))
    upstream = _upstream(output_gradient, x.dtype, plan.output_shape)
    axes = resolve_axes(spec, sizes, at[1:-1] if is_last else at[2:])
    channel = slice(at[-1], at[-1] + 1) if is_last else slice(at[1], at[1] + 1)
    plane = x[at[0] : at[0] + 1, ..., channel] if is_last else x[at[0] : at[0] + 1, channel]
    return View(
        spec=spec,
        plan=plan,
        parameters=parameters,
        at=at,
        axes=axes,
        plane=plane,
        region=plane.reshape(sizes)[tuple(axis.elements for axis in axes)],
        upstream=x.dtype.type(1) if upstream is None else upstream[at],
        is_upstream_given=upstream is not None,
    )


def coordinate_names(spec: PoolSpec, count: int) -> tuple[str, ...]:
    """What the coordinates of an output are called, in the order of the layout."""
    names = axis_names(count)
    return ("n", *names, "c") if spec.layout is Layout.CHANNELS_LAST else ("n", "c", *names)


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


def _upstream(given: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array | None:
    """The output gradient, once it fits the output."""
    if given is None:
        return None
    gradient: Array = as_tensor(given, "output_gradient")
    if dtype not in FLOATS:
        raise InvalidTensorError(
            f"output_gradient is given, but input is {dtype.name}; integers have no gradient",
            field="output_gradient",
        )
    if gradient.shape != shape or gradient.dtype != dtype:
        raise InvalidTensorError(
            f"output_gradient is {gradient.dtype.name} of shape {gradient.shape}; "
            f"the output is {dtype.name} of shape {shape}",
            field="output_gradient",
        )
    return gradient
