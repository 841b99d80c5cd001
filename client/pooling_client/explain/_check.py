"""Holds the explanation against the engine: they are worked out apart and must agree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pooling_client.explain._arithmetic import Selected, Worked
from pooling_client.explain._window import Array, View
from pooling_engine import InternalError, Layout, Mode, backward, forward


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What the engine gives for the window, in the element type.

    Attributes:
        output: the value of the output.
        shares: what each cell of the region receives, flat; empty if `Worked` has none.
    """

    output: Any
    shares: Array


def ask_engine(view: View, worked: Worked) -> Answer:
    """The engine's answer for the one plane, with the upstream gradient of this output alone.

    Raises:
        InternalError: it is not what `worked` says.
    """
    spec, plane = view.spec, view.plane
    selects = spec.mode in (Mode.MAX, Mode.MIN)
    at = _in_plane(view, tuple(axis.output for axis in view.axes))
    result = forward(plane, spec, return_indices=selects)
    shape = _in_plane(view, tuple(axis.outputs for axis in view.axes), 1)
    if result.output.shape != shape:
        raise _disagreement("the shape of the output", shape, result.output.shape)
    output = result.output[at]
    _refuse_other_output(view, worked, output)
    if result.indices is not None:
        _refuse_other_index(view, worked, result.indices[at])
    if worked.shares is None:
        return Answer(output, np.zeros(0, output.dtype))
    dy = np.zeros_like(result.output)
    dy[at] = view.upstream
    # In mode "lp" a NaN of another window would reach these cells: zero times NaN is NaN.
    x = _alone(view) if spec.mode is Mode.LP else None
    dx = backward(dy, spec, input_shape=plane.shape, indices=result.indices, input=x)
    dx = dx.reshape([axis.size for axis in view.axes])
    region = tuple(axis.elements for axis in view.axes)
    shares = dx[region].flatten()
    dx[region] = 0
    if np.any(dx != 0):
        raise _disagreement("the gradient outside the window", 0, dx[dx != 0])
    _refuse_other_shares(worked, worked.shares, shares)
    return Answer(output, shares)


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
    if isinstance(worked, Selected) and view.spec.mode is not Mode.LP and worked.cell is not None:
        selected = view.region.ravel()[worked.cell]
        if selected.tobytes() != output.tobytes():
            raise _disagreement("the output, bit for bit", selected, output)
    elif not math.isinf(worked.output_slack):
        _refuse_difference("the output", [worked.output], np.array([output]), worked.output_slack)


def _refuse_other_index(view: View, worked: Worked, index: Any) -> None:
    cell = worked.cell if isinstance(worked, Selected) else None
    number = np.iinfo(index.dtype).max if cell is None else view.tap_number(cell)
    if number != index:
        raise _disagreement("the selected tap", number, index)


def _refuse_other_shares(worked: Worked, ours: list[float], shares: Array) -> None:
    larger = np.maximum(np.abs(ours), np.abs(shares.astype(np.float64)))
    slack = 0.0 if isinstance(worked, Selected) else worked.share_slack * larger
    _refuse_difference("the gradient", ours, shares, slack)


def _refuse_difference(what: str, ours: list[float], engines: Array, slack: Any) -> None:
    """Refuses values that differ by more than `slack` and one rounding to the element type."""
    limits = np.finfo(engines.dtype)
    exact = np.array(ours, np.float64)
    with np.errstate(all="ignore"):
        rounded = exact.astype(engines.dtype)
        same = (rounded == engines) | (np.isnan(rounded) & np.isnan(engines))
        if np.any(slack):
            rounding = float(limits.eps) * np.abs(exact) + float(limits.smallest_subnormal)
            same |= np.abs(exact - engines.astype(np.float64)) <= slack + rounding
    if not same.all():
        raise _disagreement(what, exact[~same], engines[~same])


def _disagreement(what: str, ours: object, engines: object) -> InternalError:
    return InternalError(
        f"explain and the engine disagree on {what}: {ours} by the arithmetic of one window, "
        f"{engines} by the engine; one of them has a bug"
    )
