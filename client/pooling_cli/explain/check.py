"""Holds the explanation against the engine: they are worked out apart and must agree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pooling_cli.explain.parameters import disagreement
from pooling_cli.explain.rounding import format_of, round_to
from pooling_cli.explain.window import Array, View
from pooling_cli.explain.worked import Selected, Worked
from pooling_engine import Layout, Mode, NanPolicy, TiePolicy, backward, forward
from pooling_engine.dtypes import FLOATS

_BACKEND = "numpy"  # has every mode, and nothing to compile first: the bits are the same


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What the engine gives for the window, in the element type.

    Attributes:
        output: the value of the output.
        shares: what each cell of the region receives, flat; empty if `Worked` has none.
    """

    output: Any
    shares: Array


def refuse_what_the_engine_refuses(x: Array, view: View) -> None:
    """Lets the engine refuse the tensor for a NaN or an overflow, be it in another window.

    Raises:
        InvalidTensorError: nan_policy is "error" and a window has a NaN, or a sum of integers
            overflows.
    """
    sums_integers = not view.has_gradient and not view.plan.selects
    if view.spec.nan_policy is NanPolicy.ERROR or sums_integers:
        forward(x, view.spec, backend=_BACKEND)


def ask_engine(view: View, worked: Worked) -> Answer:
    """The engine's answer for the one plane, with the upstream gradient of this output alone.

    Raises:
        InternalError: it is not what `worked` says.
    """
    spec, plane = view.spec, view.plane
    at = _in_plane(view, tuple(axis.output for axis in view.axes))
    selects = spec.mode in (Mode.MAX, Mode.MIN)
    result = forward(plane, spec, return_indices=selects, backend=_BACKEND)
    shape = _in_plane(view, tuple(axis.outputs for axis in view.axes), 1)
    if result.output.shape != shape:
        raise disagreement("the shape of the output", shape, result.output.shape)
    output = result.output[at]
    _refuse_other_output(view, worked, output)
    if result.indices is not None:
        _refuse_other_index(view, worked, result.indices[at])
    if worked.shares is None:
        return Answer(output, np.zeros(0, output.dtype))
    dy = np.zeros_like(result.output)
    dy[at] = view.upstream
    x = _residual(view)
    indices = result.indices if x is None else None
    dx = backward(dy, spec, input_shape=plane.shape, indices=indices, input=x, backend=_BACKEND)
    dx = dx.reshape([axis.size for axis in view.axes])
    region = tuple(axis.elements for axis in view.axes)
    shares = dx[region].flatten()
    dx[region] = 0
    if np.any(dx != 0):
        raise disagreement("the gradient outside the window", 0, dx[dx != 0])
    _refuse_other_shares(worked, worked.shares, shares)
    return Answer(output, shares)


def _residual(view: View) -> Array | None:
    """The input, where the backward pass needs it."""
    if view.spec.mode is Mode.LP:
        # A NaN of another window would reach these cells: zero times NaN is NaN.
        return _alone(view)
    return None if view.spec.tie_policy is TiePolicy.FIRST else view.plane


def _in_plane(view: View, numbers: tuple[int, ...], other: int = 0) -> tuple[int, ...]:
    """Spatial numbers as an index or a shape of a plane's output, `other` for N and C."""
    is_last = view.spec.layout is Layout.CHANNELS_LAST
    return (other, *numbers, other) if is_last else (other, other, *numbers)


def _alone(view: View) -> Array:
    """The plane with zeros around the region."""
    sizes = [axis.size for axis in view.axes]
    alone = np.zeros(sizes, view.plane.dtype)
    alone[tuple(axis.elements for axis in view.axes)] = view.region
    return alone.reshape(view.plane.shape)


def _refuse_other_output(view: View, worked: Worked, output: Any) -> None:
    if view.spec.nan_policy is NanPolicy.ERROR and any(map(math.isnan, view.values)):
        raise disagreement("a NaN in the window", "refused", output)
    if isinstance(worked, Selected) and view.spec.mode is not Mode.LP and worked.cell is not None:
        selected = view.region.ravel()[worked.cell]
        if selected.tobytes() != output.tobytes():
            raise disagreement("the output, bit for bit", selected, output)
    elif output.dtype not in FLOATS:
        if worked.output != int(output):
            raise disagreement("the output", worked.output, output)
    elif not math.isinf(worked.output_slack):
        _refuse_difference("the output", [worked.output], np.array([output]), worked.output_slack)


def _refuse_other_index(view: View, worked: Worked, index: Any) -> None:
    cell = worked.cell if isinstance(worked, Selected) else None
    number = np.iinfo(index.dtype).max if cell is None else view.tap_number(cell)
    if number != index:
        raise disagreement("the selected tap", number, index)


def _refuse_other_shares(worked: Worked, ours: list[float], shares: Array) -> None:
    larger = np.maximum(np.abs(ours), np.abs(shares.astype(np.float64)))
    slack = 0.0 if isinstance(worked, Selected) else worked.share_slack * larger
    _refuse_difference("the gradient", ours, shares, slack)


def _refuse_difference(what: str, ours: list[float], engines: Array, slack: Any) -> None:
    """Refuses values that differ by more than `slack` and one rounding to the element type."""
    exact = np.array(ours, np.float64)
    rounded = round_to(engines.dtype, exact)
    with np.errstate(all="ignore"):
        same = (rounded == engines) | (np.isnan(rounded) & np.isnan(engines))
        if np.any(slack):
            form = format_of(engines.dtype)
            rounding = form.epsilon * np.abs(exact) + form.smallest
            same |= np.abs(exact - engines.astype(np.float64)) <= slack + rounding
    if not same.all():
        raise disagreement(what, exact[~same], engines[~same])
