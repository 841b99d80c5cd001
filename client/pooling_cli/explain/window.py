"""One window of a tensor: the call that it is part of, its taps, and the elements under them."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pooling_cli.explain.records import AxisWindow, Region
from pooling_cli.explain.resolve import adaptive_elements, coordinate_names, resolve_parameters
from pooling_cli.explain.spec_records import Axis, Parameters
from pooling_engine import ForwardCall, InvalidSpecError, InvalidTensorError, Layout, PoolSpec

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One window of one plane, with the arrays that the engine computes on.

    Attributes:
        spec: the spec.
        parameters: the spec resolved for the tensor, and checked against the engine's plan.
        at: the output that is explained, an index into the output.
        region: the window and its elements.
        plane: the plane, of shape (1, 1, D1..Dn) or, channels last, (1, D1..Dn, 1).
        elements: the slice of the plane's spatial axes under the taps.
        upstream: the gradient of the output, of the tensor's element type.
        is_upstream_given: the caller gave it; otherwise it is 1.
    """

    spec: PoolSpec
    parameters: Parameters
    at: tuple[int, ...]
    region: Region
    plane: Array
    elements: tuple[slice, ...]
    upstream: Any
    is_upstream_given: bool

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of the input."""
        return self.plane.dtype

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of the plane's spatial axes."""
        return tuple(axis.size for axis in self.parameters.axes)

    @property
    def has_gradient(self) -> bool:
        """The elements are floating-point numbers; integers have no backward step."""
        return _is_float(self.dtype)


def view_window(
    x: Array, spec: PoolSpec, at: tuple[int, ...], output_gradient: Array | None
) -> View:
    """Return the window of output `at` of tensor `x`.

    Raises:
        InvalidSpecError: the spec does not fit the tensor, or `at` is not an index of the output.
        InvalidTensorError: the tensor or the gradient has a wrong shape or element type.
        InternalError: the engine's plan has other parameters.
    """
    call = ForwardCall(x, spec)
    x, plan = call.input, call.plan
    parameters = resolve_parameters(spec, plan)
    sizes = plan.sizes
    at = _checked(at, plan.output_shape, coordinate_names(spec.layout, len(sizes)))
    upstream = _upstream(output_gradient, x.dtype, plan.output_shape)
    is_last = spec.layout is Layout.CHANNELS_LAST
    windows = tuple(map(window_along, parameters.axes, at[1:-1] if is_last else at[2:]))
    channel = slice(at[-1], at[-1] + 1) if is_last else slice(at[1], at[1] + 1)
    plane = x[at[0] : at[0] + 1, ..., channel] if is_last else x[at[0] : at[0] + 1, channel]
    elements = tuple(map(_slice, windows))
    return View(
        spec=spec,
        parameters=parameters,
        at=at,
        region=_region(windows, plane.reshape(sizes)[elements]),
        plane=plane,
        elements=elements,
        upstream=x.dtype.type(1) if upstream is None else upstream[at],
        is_upstream_given=upstream is not None,
    )


def window_along(axis: Axis, output: int) -> AxisWindow:
    """Return the taps of one of an axis' windows."""
    start, taps = output * axis.stride - axis.padding_before, axis.kernel
    if not axis.stride:
        elements = adaptive_elements(axis.size, axis.outputs, output)
        start, taps = elements.start, len(elements)
    first = max(0, -(start // axis.dilation))
    last = min(taps - 1, (axis.size - 1 - start) // axis.dilation)
    end = axis.size + axis.padding_after
    return AxisWindow(
        name=axis.name,
        output=output,
        start=start,
        step=axis.dilation,
        taps=taps,
        taps_within_padding=min(taps, -((start - end) // axis.dilation)),
        first_on_element=first,
        elements=tuple(start + tap * axis.dilation for tap in range(first, last + 1)),
    )


def windows_on(axis: Axis, window: AxisWindow, tap: int) -> int:
    """Return the number of an axis' windows, this one included, with a tap where `tap` is."""
    if not axis.stride:  # adaptive: from floor(at * o / L) up to ceil((at + 1) * o / L)
        at = window.position(tap)
        return -(-(at + 1) * axis.outputs // axis.size) - at * axis.outputs // axis.size
    common = math.gcd(axis.stride, axis.dilation)
    # An element is under another tap of the windows before and after this one: `outputs_apart`
    # windows later, it is `taps_apart` taps earlier.
    taps_apart, outputs_apart = axis.stride // common, axis.dilation // common
    later = min(tap // taps_apart, (axis.outputs - 1 - window.output) // outputs_apart)
    earlier = min((window.taps - 1 - tap) // taps_apart, window.output // outputs_apart)
    return earlier + 1 + later


def _is_float(dtype: np.dtype[Any]) -> bool:
    return dtype.kind not in "iu"  # the kind of bfloat16 is not "f"


def _slice(window: AxisWindow) -> slice:
    if not window.elements:
        return slice(0, 0)
    return slice(window.elements[0], window.elements[-1] + 1, window.step)


def _region(windows: tuple[AxisWindow, ...], elements: Array) -> Region:
    number = float if _is_float(elements.dtype) else int
    return Region(
        axes=windows,
        taps=math.prod(axis.taps for axis in windows),
        taps_within_padding=math.prod(axis.taps_within_padding for axis in windows),
        shape=elements.shape,
        values=tuple(map(number, elements.ravel())),
    )


def _checked(at: Any, shape: tuple[int, ...], names: tuple[str, ...]) -> tuple[int, ...]:
    """Return the coordinates as integers, each inside the output."""
    try:
        coordinates = tuple(operator.index(coordinate) for coordinate in at)
    except TypeError:
        raise InvalidSpecError(
            f"at is {at!r}; it must be {len(shape)} integers: {', '.join(names)}", field="at"
        ) from None
    if len(coordinates) != len(shape):
        raise InvalidSpecError(
            f"at is {coordinates}, which has {len(coordinates)} coordinates; the output has shape "
            f"{shape}, so it must have {len(shape)}: {', '.join(names)}",
            field="at",
        )
    for number, (name, coordinate, size) in enumerate(zip(names, coordinates, shape, strict=True)):
        if not 0 <= coordinate < size:
            text = f"at is {coordinates}; the output has shape {shape}"
            if not size:
                raise InvalidSpecError(f"{text}: the batch is empty", field="at")
            raise InvalidSpecError(
                f"{text}, so coordinate {number} ({name}) is {coordinate} but must be from 0 to "
                f"{size - 1}",
                field="at",
            )
    return coordinates


def _upstream(given: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array | None:
    """Return the output gradient if it fits the output."""
    if given is None:
        return None
    gradient: Array = np.asarray(given)
    if not _is_float(dtype):
        raise InvalidTensorError(
            f"output_gradient is given, but input is {dtype.name}; integers have no gradient",
            field="output_gradient",
        )
    if gradient.shape != shape or gradient.dtype.newbyteorder("=") != dtype:
        raise InvalidTensorError(
            f"output_gradient is {gradient.dtype.name} of shape {gradient.shape}; "
            f"the output is {dtype.name} of shape {shape}",
            field="output_gradient",
        )
    return gradient
