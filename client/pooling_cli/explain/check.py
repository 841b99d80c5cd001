"""Comparison with the engine: two independent computations that must agree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pooling_cli.explain.arithmetic import Expected
from pooling_cli.explain.records import Selection
from pooling_cli.explain.resolve import disagreement
from pooling_cli.explain.window import Array, View
from pooling_engine import Layout, Mode, NanPolicy, TiePolicy, backward, forward

_BACKEND = "numpy"  # has every mode and nothing to compile; results are bit-identical


class Format(NamedTuple):
    """A binary floating-point format.

    Attributes:
        bits: bits of the significand, the hidden one included.
        least: exponent of the smallest normal number, as `math.frexp` counts.
    """

    bits: int
    least: int

    @property
    def epsilon(self) -> float:
        """The distance from 1 to the next number."""
        return 2.0 ** (1 - self.bits)

    @property
    def smallest(self) -> float:
        """The smallest number above zero."""
        return 2.0 ** (self.least - self.bits)


_FORMATS = {
    "bfloat16": Format(8, -125),
    "float16": Format(11, -13),
    "float32": Format(24, -125),
    "float64": Format(53, -1021),
}


@dataclass(frozen=True, slots=True, eq=False)
class EngineResults:
    """The engine's results for the window, in their element types.

    Attributes:
        output: the value of the output.
        shares: the gradient of each element; None where `Expected` has none.
    """

    output: Any
    shares: Array | None


def reject_as_the_engine_does(x: Array, view: View) -> None:
    """Let the engine reject the tensor for a NaN or an overflow, also in another window.

    Raises:
        InvalidTensorError: nan_policy is "error" and a window has a NaN, or a sum of integers
            overflows.
    """
    sums_integers = not view.has_gradient and view.parameters.indices is None
    if view.spec.nan_policy is NanPolicy.ERROR or sums_integers:
        forward(x, view.spec, backend=_BACKEND)


def engine_results(view: View, expected: Expected) -> EngineResults:
    """Return the engine's results for the plane, with the upstream gradient of one output.

    Raises:
        InternalError: they differ from `expected`.
    """
    spec, plane, windows = view.spec, view.plane, view.region.axes
    at = _in_plane(view, tuple(axis.output for axis in windows))
    selects = view.parameters.indices is not None
    result = forward(plane, spec, return_indices=selects, backend=_BACKEND)
    shape = _in_plane(view, tuple(axis.outputs for axis in view.parameters.axes), 1)
    if result.output.shape != shape:
        raise disagreement("the shape of the output", shape, result.output.shape)
    output = result.output[at]
    _compare_output(view, expected, output)
    if result.indices is not None:
        _compare_index(expected, result.indices[at])
    if expected.shares is None:
        return EngineResults(output, None)
    dy = np.zeros_like(result.output)
    dy[at] = view.upstream
    x = _residual(view)
    indices = result.indices if x is None else None
    dx = backward(dy, spec, input_shape=plane.shape, indices=indices, input=x, backend=_BACKEND)
    dx = dx.reshape(view.sizes)
    shares = dx[view.elements].flatten()
    dx[view.elements] = 0
    if np.any(dx != 0):
        raise disagreement("the gradient outside the window", 0, dx[dx != 0])
    _compare_shares(expected, expected.shares, shares)
    return EngineResults(output, shares)


def tolerance(dtype: str) -> float:
    """Return the distance from 1 to the next number of a floating-point type."""
    return _FORMATS[dtype].epsilon


def round_to(dtype: np.dtype[Any], values: NDArray[np.float64]) -> Array:
    """Return the nearest numbers of a type; ties go to the even one."""
    if dtype.itemsize == 2:  # NumPy's own cast may go by way of float32 and round twice
        form = _FORMATS[dtype.name]
        exponents = np.maximum(np.frexp(values)[1], form.least) - form.bits
        with np.errstate(all="ignore"):
            quanta = np.ldexp(1.0, exponents)
            values = np.where(np.isfinite(values), np.rint(values / quanta) * quanta, values)
    with np.errstate(all="ignore"):
        return values.astype(dtype)


def _residual(view: View) -> Array | None:
    """Return the input where the backward pass needs it."""
    if view.spec.mode is Mode.LP:
        # A NaN of another window would reach these elements: zero times NaN is NaN.
        return _alone(view)
    return None if view.spec.tie_policy is TiePolicy.FIRST else view.plane


def _in_plane(view: View, numbers: tuple[int, ...], other: int = 0) -> tuple[int, ...]:
    """Return spatial numbers as an index or a shape of the plane, `other` for N and C."""
    is_last = view.spec.layout is Layout.CHANNELS_LAST
    return (other, *numbers, other) if is_last else (other, other, *numbers)


def _alone(view: View) -> Array:
    """Return the plane with zeros around the region."""
    plane = view.plane.reshape(view.sizes)
    alone = np.zeros_like(plane)
    alone[view.elements] = plane[view.elements]
    return alone.reshape(view.plane.shape)


def _compare_output(view: View, expected: Expected, output: Any) -> None:
    region, step = view.region, expected.forward
    if view.spec.nan_policy is NanPolicy.ERROR and any(map(math.isnan, region.values)):
        raise disagreement("a NaN in the window", "rejected", output)
    if isinstance(step, Selection) and view.spec.mode is not Mode.LP and step.tied:
        selected = view.plane.reshape(view.sizes)[step.position]
        if selected.tobytes() != output.tobytes():
            raise disagreement("the output, bit for bit", selected, output)
    elif output.dtype.kind in "iu":
        if expected.output != int(output):
            raise disagreement("the output", expected.output, output)
    elif not math.isinf(expected.output_slack):
        _compare("the output", [expected.output], np.array([output]), expected.output_slack)


def _compare_index(expected: Expected, index: Any) -> None:
    tap = expected.forward.tap if isinstance(expected.forward, Selection) else None
    number = np.iinfo(index.dtype).max if tap is None else tap
    if number != index:
        raise disagreement("the selected tap", number, index)


def _compare_shares(expected: Expected, ours: list[float], shares: Array) -> None:
    larger = np.maximum(np.abs(ours), np.abs(shares.astype(np.float64)))
    is_exact = isinstance(expected.forward, Selection)
    _compare("the gradient", ours, shares, 0.0 if is_exact else expected.share_slack * larger)


def _compare(what: str, ours: list[float], engines: Array, slack: Any) -> None:
    """Reject values that differ by more than `slack` and one rounding to the element type."""
    exact = np.array(ours, np.float64)
    rounded = round_to(engines.dtype, exact)
    with np.errstate(all="ignore"):
        same = (rounded == engines) | (np.isnan(rounded) & np.isnan(engines))
        if np.any(slack):
            form = _FORMATS[engines.dtype.name]
            rounding = form.epsilon * np.abs(exact) + form.smallest
            same |= np.abs(exact - engines.astype(np.float64)) <= slack + rounding
    if not same.all():
        raise disagreement(what, exact[~same], engines[~same])
