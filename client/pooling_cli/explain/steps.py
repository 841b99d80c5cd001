"""The steps of an explanation: computes and checks them, and returns them as records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pooling_engine
from pooling_cli.explain.arithmetic import Expected, expected_results
from pooling_cli.explain.check import (
    EngineResults,
    engine_results,
    reject_as_the_engine_does,
    tolerance,
)
from pooling_cli.explain.records import (
    Check,
    Gradient,
    Outcome,
    Output,
    SeedSteps,
    Selection,
    WindowSteps,
)
from pooling_cli.explain.resolve import coordinate_names, output_sizes, resolve_parameters
from pooling_cli.explain.spec_records import SpecSteps
from pooling_cli.explain.window import Array, View, view_window, windows_on
from pooling_engine import Mode, PoolSpec

SEED_REGION = (
    (5241.0743993, 12349.96024235, 12688.05480956),
    (5107.94168207, 7228.75050703, 8462.73752744),
    (2468.53560093, 5849.12001444, 7523.96554065),
)
SEED_GRADIENT = -1.4552119186e-08
SEED_SHAPE = (10, 16, 14, 14)


def window_steps(
    x: Array, spec: PoolSpec, at: tuple[int, ...], output_gradient: Array | None = None
) -> WindowSteps:
    """Return the steps of one window, forward and backward, checked against the engine.

    Args:
        x: the tensor, of shape (N, C, D1..Dn) or, channels last, (N, D1..Dn, C).
        spec: the spec.
        at: the output to explain, an index into the output in the same layout.
        output_gradient: the gradient of the output, of its shape and type; None: ones.

    Raises:
        InvalidSpecError: the spec does not fit the tensor, or `at` is not an index of the output.
        InvalidTensorError: the tensor or the gradient has a wrong shape or element type.
        InternalError: the explanation and the engine disagree.
    """
    view = view_window(x, spec, at, output_gradient)
    reject_as_the_engine_does(x, view)
    expected = expected_results(view)
    results = engine_results(view, expected)
    parameters = view.parameters
    return WindowSteps(
        parameters=parameters,
        at=view.at,
        coordinates=coordinate_names(parameters.layout, len(parameters.axes)),
        region=view.region,
        forward=expected.forward,
        output=_output(expected, results),
        backward=_gradient(view, expected, results) if view.has_gradient else None,
        output_size=output_sizes(spec, parameters.axes, tuple(a.output for a in view.region.axes)),
        check=_check(view, expected),
    )


def spec_steps(spec: PoolSpec, shape: Sequence[int], dtype: Any) -> SpecSteps:
    """Return the parameters of a spec for a shape and an element type, without a tensor.

    Args:
        spec: the spec.
        shape: shape of the input.
        dtype: element type of the input.

    Raises:
        InvalidSpecError: the windows do not fit the shape.
        InvalidTensorError: the shape or the element type is illegal.
        InternalError: the parameters and the engine's plan disagree.
    """
    parameters = resolve_parameters(spec, pooling_engine.plan(spec, shape, dtype))
    return SpecSteps(parameters=parameters, output_size=output_sizes(spec, parameters.axes))


def seed_steps() -> SeedSteps:
    """Return the steps of the example that this project started from: a plane with one window.

    Raises:
        InternalError: the explanation and the engine disagree.
    """
    x = np.array(SEED_REGION).reshape(1, 1, 3, 3)
    gradient = np.full((1, 1, 1, 1), SEED_GRADIENT)
    modes = {
        mode: window_steps(x, PoolSpec(mode, kernel=3, stride=2), (0, 0, 0, 0), gradient)
        for mode in ("max", "average", "min")
    }
    plane = spec_steps(PoolSpec("max", kernel=3, stride=2), SEED_SHAPE, x.dtype)
    return SeedSteps(**modes, plane=plane)


def _output(expected: Expected, results: EngineResults) -> Output:
    return Output(
        value=results.output.item() if results.output.dtype.kind in "iu" else float(results.output),
        unrounded=expected.output,
        depends_on_order=math.isinf(expected.output_slack),
    )


def _gradient(view: View, expected: Expected, results: EngineResults) -> Gradient:
    shares = results.shares
    outcome: Outcome = "passed"
    if not view.region.values:
        outcome = "no_elements"
    elif isinstance(expected.forward, Selection) and not expected.forward.tied:
        outcome = "none_selected"
    elif shares is None:
        outcome = "undefined"
    return Gradient(
        upstream=float(view.upstream),
        is_upstream_given=view.is_upstream_given,
        outcome=outcome,
        receivers=expected.receivers,
        parts=expected.parts,
        shares=_floats(shares) if outcome == "passed" and shares is not None else None,
        other_windows=_other_windows(view),
    )


def _floats(array: NDArray[Any]) -> tuple[float, ...]:
    return tuple(map(float, array))


def _other_windows(view: View) -> tuple[int, ...]:
    """Return the number of other windows that contain each element."""
    along = [
        [windows_on(axis, window, tap) for tap in window.on_elements]
        for axis, window in zip(view.parameters.axes, view.region.axes, strict=True)
    ]
    return tuple(math.prod(windows) - 1 for windows in product(*along))


def _check(view: View, expected: Expected) -> Check:
    """Return which results were compared with the engine's, and how closely."""
    step, dtype = expected.forward, view.parameters.output_dtype
    compared = []
    if isinstance(step, Selection) and view.spec.mode is not Mode.LP:
        compared = ["index"]
    compared += ["output"] * math.isfinite(expected.output_slack)
    compared += ["gradient"] * (expected.shares is not None)
    is_exact = isinstance(step, Selection) or "int" in dtype
    return Check(compared=tuple(compared), tolerance=0.0 if is_exact else tolerance(dtype))
