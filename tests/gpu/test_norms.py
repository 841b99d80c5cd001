"""Norms of the CuPy backend, within error bounds derived from their arithmetic: shim and GPU.

For p = 1 and p = infinity the results are bit-identical to NumPy's. For other p the `pow` of a GPU
gives other bits. They are the same however a call is cut, and within the bounds derived here.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pooling_engine
from pooling_engine import PoolSpec, backward, forward
from pooling_engine.backends.cupy_backend.planning import choosing, launches
from tests.gpu.support import Array, patched_planner, positions_of_64_bits
from tests.support import cases, golden, oracle, pairs, palettes

pytestmark = pytest.mark.usefixtures("anywhere")

U = np.longdouble(2) ** -53  # relative error of rounding to float64
LEAST = np.longdouble(2) ** -1074
MOST = np.finfo(np.longdouble).max
LARGEST = np.longdouble(np.finfo(np.float64).max)
POW = 4  # in U: CUDA's `pow` is accurate to 2 ulp, and an ulp is at most 2 U
EXPONENTS = (1, 2, 3, 1.5, 2.0625, 7, 64, 64.5, 1000, 1e6, math.inf)
every_type = pytest.mark.parametrize("dtype", palettes.DTYPES, ids=lambda dtype: dtype.name)


def norm(magnitudes: Array, p: float) -> np.longdouble:
    """Return the norm in the widest type; NaN if there is a NaN."""
    largest = magnitudes.max(initial=0)
    if not 0 < largest < np.inf or math.isinf(p):
        return largest
    return largest * ((magnitudes / largest) ** p).sum() ** (1 / np.longdouble(p))


def norm_error(p: float, taps: int, additions: int) -> float:
    """Return the relative error of a norm, in U.

    - A ratio is rounded once at most, and the power multiplies this error by p.
    - The power has p - 1 multiplications, or is `pow`.
    - The sum adds one error per addition.
    - The root divides all of these errors by p and adds its own. The rounding of 1 / p contributes
      log(sum) / p, where the sum is at most taps * 2^p.
    - The scale adds one.
    """
    if math.isinf(p):
        return 0
    terms = p + max(p - 1 if p <= 64 else 0, POW)
    return (terms + additions + math.log(max(taps, 1))) / p + math.log(2) + POW + 1


def share_error(p: float, error: float, ratios: Array) -> Any:
    """Return the relative error of ``ratio^(p - 1)`` times a gradient, in U.

    A ratio is a magnitude over a norm that has an error, rounded once more. The smallest float64 is
    `LEAST`.
    """
    rounding = np.maximum(1, LEAST / (np.maximum(ratios, LEAST) * U))
    power = np.expm1((p - 1) * (error + rounding) * U) / U
    return power + max(p - 2 if p <= 65 else 0, POW) + 1


def additions_of(options: dict[str, Any], sizes: tuple[int, ...]) -> int:
    """Return the largest number of additions that a term goes through in any kernel."""
    if options.get("global_window"):
        size = math.prod(sizes)
        return size if options.get("layout") == "channels_last" else 64 + size // 1024 + 6
    return sum(oracle.kernel_of(window) for window in cases.windows_of(options, sizes))


def assert_between(actual: Array, low: Array, high: Array) -> None:
    """Check that each element of `actual` is the rounded value of a real between two bounds."""
    with np.errstate(all="ignore"):
        low, high = (oracle.to_type(end.astype(np.float64), actual.dtype) for end in (low, high))
    is_right = (low <= actual) & (actual <= high) | np.isnan(actual) & np.isnan(low)
    if not is_right.all():
        where = tuple(map(int, np.argwhere(~is_right)[0]))
        raise AssertionError(f"at {where}: {actual[where]!r} is not {low[where]}..{high[where]}")


def assert_exact(options: dict[str, Any], x: Array, seed: int) -> None:
    """Check both directions; `x` is channels first. The output's gradient is finite and not 0."""
    spec, p = PoolSpec(**options), options["norm_p"]
    given = cases.to_layout(options, x)
    y = cases.from_layout(options, forward(given, spec, backend="cupy").output)
    dy = cases.normal(y.shape, x.dtype, seed)
    dy[dy == 0] = 1
    sent = cases.to_layout(options, dy)
    dx = cases.from_layout(options, backward(sent, spec, input=given, backend="cupy"))
    with np.errstate(all="ignore"):
        assert_between(y, *norms_between(options, x, p))
        if p != 1 and not math.isinf(p):
            assert_between(dx, *gradients_between(options, x, dy, p))


def windows(
    options: dict[str, Any], x: Array
) -> Iterator[tuple[tuple[int, ...], list[tuple[int, ...]]]]:
    """Yield the place of each output, and the positions of its taps that lie on elements."""
    axes, sizes = cases.windows_of(options, x.shape[2:]), x.shape[2:]
    shape = oracle.output_shape(x.shape, axes, options.get("ceil_mode", False))
    for place in np.ndindex(shape):
        taps = oracle.taps_of(place[2:], axes)
        yield place, [place[:2] + at for at in taps if oracle.is_valid(at, sizes)]


def norms_between(options: dict[str, Any], x: Array, p: float) -> Any:
    """Return the lower and upper bounds of the norms before they are rounded."""
    wide, ends = np.abs(x.astype(np.longdouble)), {}
    additions = additions_of(options, x.shape[2:])
    for place, taps in windows(options, x):
        y = norm(np.array([wide[at] for at in taps], np.longdouble), p)
        error = y * norm_error(p, len(taps), additions) * U + (LEAST if p < math.inf else 0)
        ends[place] = (y - error, y + error) if np.isfinite(y) else (y, y)
    shape = tuple(size + 1 for size in max(ends)) if ends else (0,) * x.ndim
    return np.moveaxis(np.array([ends[at] for at in np.ndindex(shape)]).reshape(*shape, 2), -1, 0)


def gradients_between(options: dict[str, Any], x: Array, dy: Array, p: float) -> Any:
    """Return the lower and upper bounds of the gradient before it is rounded."""
    wide, shares = x.astype(np.longdouble), defaultdict(list)
    additions = additions_of(options, x.shape[2:])
    for place, taps in windows(options, x):
        magnitudes = np.abs(np.array([wide[at] for at in taps], np.longdouble))
        y = norm(magnitudes, p)
        if y == 0:
            continue
        error = norm_error(p, len(taps), additions) + LEAST / (y * U)
        may_overflow = y * (1 + error * U) > LARGEST
        if y * (1 - (error + 2) * U) > LARGEST:  # the norm is infinite: finite elements get 0
            y = np.longdouble(np.inf)
        ratios = np.where(magnitudes == y, 1, magnitudes / y)
        g = dy[place].astype(np.longdouble)
        sent = g * ratios ** (p - 1)
        error = np.minimum(share_error(p, error, ratios), MOST)  # finite, so that 0 times it is 0
        slack = np.minimum(np.abs(sent) * error * U, abs(g)) + (abs(g) + 1) * LEAST
        if may_overflow:  # to any share between 0 and that without an overflow
            slack = np.maximum(slack, np.abs(sent))
        slack = np.where(ratios < LEAST, np.maximum(slack, np.abs(sent)), slack)  # rounded to 0
        for at, *share in zip(taps, sent, slack, strict=True):
            shares[at].append(share)
    low, high = np.zeros((2, *x.shape), np.longdouble)
    for at, received in shares.items():
        total = sum(share for share, _ in received) * np.sign(wide[at])
        spread = sum(error for _, error in received)
        spread += len(received) * U * sum(abs(share) for share, _ in received)
        low[at], high[at] = total - spread, total + spread
    return low, high


def test_a_ratio_that_is_rounded_to_zero_has_no_share() -> None:
    options = {"mode": "lp", "norm_p": 1.5, "global_window": True}
    assert_exact(options, np.array([[[2.8e-288, -2.1e78, -1e201]]]), seed=1)


def test_the_reference_is_wider_than_float64() -> None:
    assert np.finfo(np.longdouble).nmant >= 63


@every_type
@given(st.data())
@settings(cases.many_examples, max_examples=60)
def test_any_case(dtype: np.dtype[Any], data: st.DataObject) -> None:
    options, sizes, seed = data.draw(st.integers(1, 3).flatmap(cases.ranked_windows))
    p = data.draw(st.sampled_from(EXPONENTS) | st.floats(1, 100))
    value = palettes.VALUES[data.draw(st.sampled_from(tuple(palettes.VALUES)))]
    planes = data.draw(st.sampled_from((1, 1, 2))), data.draw(st.sampled_from((1, 2, 8)))
    options |= {"mode": "lp", "norm_p": p}
    assert_exact(options, value((*planes, *sizes), dtype, seed), seed + 1)


@every_type
@given(st.data())
@settings(cases.many_examples, max_examples=60)
def test_p_of_1_and_infinity(dtype: np.dtype[Any], data: st.DataObject) -> None:
    """These are bit-identical to NumPy, except sums of global windows, which have another order."""
    options, sizes, seed = data.draw(st.integers(1, 3).flatmap(cases.ranked_windows))
    p = math.inf if "global_window" in options else data.draw(st.sampled_from((1, math.inf)))
    value = palettes.VALUES[data.draw(st.sampled_from(tuple(palettes.VALUES)))]
    planes = data.draw(st.sampled_from((0, 1, 2))), data.draw(st.sampled_from((1, 2, 8)))
    x = value((*planes, *sizes), dtype, seed)
    pairs.assert_same_calls("cupy", options | {"mode": "lp", "norm_p": p}, x, cases.normal, seed)


# Large windows and whole planes, one team of threads each.
TEAMS = (
    ({"kernel": (8, 9), "stride": (2, 9), "padding": (3, 4)}, (1, 2, 11, 40)),
    ({"kernel": (8, 20), "stride": 8, "dilation": 2, "padding": (7, 19)}, (1, 2, 9, 41)),
    ({"kernel": 70, "stride": 9, "padding": 69, "ceil_mode": True}, (1, 5, 200)),
    ({"adaptive_output": (1, 7, 2)}, (2, 1, 3, 10, 63)),
    ({"global_window": True}, (3, 7, 7, 7)),
    ({"global_window": True}, (1, 2, 1032)),
    ({"global_window": True}, (1, 1, 9001)),
)
of_teams = pytest.mark.parametrize(("options", "shape"), TEAMS, ids=cases.name_of)


@every_type
@of_teams
def test_teams(dtype: np.dtype[Any], options: dict[str, Any], shape: tuple[int, ...]) -> None:
    for p, values in ((1, "hard"), (2, "normal"), (2.5, "huge"), (3, "tiny"), (math.inf, "hard")):
        options = options | {"mode": "lp", "norm_p": p}
        plan = pooling_engine.plan(PoolSpec(**options), shape, dtype)
        assert launches.forward_launch(plan, False, True).file == "norm_teams.cu"
        x = palettes.VALUES[values](shape, dtype, 1)
        assert_exact(options, x, 2)
        if math.isinf(p):
            pairs.assert_same_calls("cupy", options, x, cases.normal, 1)


def both_directions(options: dict[str, Any], x: Array, p: float) -> tuple[Array, Array]:
    spec, given = PoolSpec("lp", norm_p=p, **options), cases.to_layout(options, x)
    y = forward(given, spec, backend="cupy").output
    return y, backward(cases.normal(y.shape, x.dtype, 1), spec, input=given, backend="cupy")


def no_team(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(launches, "team_size", lambda plan: None)


def no_packs(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        launches,
        "general_variant",
        lambda plan, _, of_input: choosing.general_variant(plan, False, of_input),
    )
    patch.setattr(launches, "pack_size", lambda *_, **__: 1)


PLANNERS = (no_team, positions_of_64_bits, no_packs)
LAST = {"kernel": (3, 2), "stride": 2, "padding": 1, "layout": "channels_last"}


@every_type
@pytest.mark.parametrize("planner", PLANNERS, ids=lambda planner: planner.__name__)
def test_every_kernel_gives_the_same_bits(
    dtype: np.dtype[Any], planner: Callable[[pytest.MonkeyPatch], None]
) -> None:
    for (options, shape), p in zip((*TEAMS, (LAST, (2, 16, 7, 5))), EXPONENTS, strict=False):
        x = cases.normal(shape, dtype)
        expected = both_directions(options, x, p)
        with patched_planner(planner):
            found = both_directions(options, x, p)
        for one, other in zip(found, expected, strict=True):
            oracle.assert_same_bits(one, other)


@every_type
def test_a_plane_alone_has_the_same_bits(dtype: np.dtype[Any]) -> None:
    for options, shape in (*TEAMS, ({"kernel": 3, "stride": 1}, (3, 5, 9, 40))):
        x = cases.normal(shape, dtype)
        spec = PoolSpec("lp", norm_p=2.5, **options)
        y = forward(x, spec, backend="cupy").output
        dx = backward(y, spec, input=x, backend="cupy")
        one = np.s_[-1:, -1:]
        oracle.assert_same_bits(forward(x[one], spec, backend="cupy").output, y[one])
        oracle.assert_same_bits(backward(y[one], spec, input=x[one], backend="cupy"), dx[one])


@every_type
@pytest.mark.parametrize("kernel", [4, 70])
def test_a_row_band_has_the_same_bits(dtype: np.dtype[Any], kernel: int) -> None:
    """Compute outputs 2 to 4 from their rows alone, and the gradient of rows of them alone."""
    x = cases.normal((1, 2, 15, 90), dtype)
    outputs, rows, own = np.s_[:, :, 2:5], np.s_[:, :, 4:11], np.s_[:, :, 6:9]
    for p in EXPONENTS:
        spec = PoolSpec("lp", (3, kernel), (2, 1), norm_p=p)
        y = forward(x, spec, backend="cupy").output
        dx = backward(y, spec, input=x, backend="cupy")
        oracle.assert_same_bits(forward(x[rows], spec, backend="cupy").output, y[outputs])
        band = backward(y[outputs], spec, input=x[rows], backend="cupy")
        oracle.assert_same_bits(band[:, :, 2:5], dx[own])


@every_type
@pytest.mark.parametrize("p", [1, 1.5, 2, 3, math.inf])
def test_infinities_and_nans(dtype: np.dtype[Any], p: float) -> None:
    """An infinite tap receives the whole gradient of its window; a NaN affects only its window."""
    spec = PoolSpec("lp", 2, norm_p=p)
    x = np.array([[[-np.inf, 3, 4, 0, 0, 0, np.nan, 1]]], dtype)
    y = forward(x, spec, backend="cupy").output
    assert y[0, 0].tolist()[:3] == [np.inf, 4 if p > 1e3 else y[0, 0, 1], 0]
    assert np.isnan(y[0, 0, 3])
    dx = backward(np.ones_like(y), spec, input=x, backend="cupy")[0, 0]
    assert dx[:2].tolist() == [-1, 1 if p == 1 else 0]
    assert dx[3:6].tolist() == [0, 0, 0]
    assert np.isnan(dx[6])
    assert np.isnan(dx[7]) == (1 < p < np.inf)


@pytest.mark.parametrize("p", [1.5, 2, 3])
def test_a_norm_that_overflows_is_infinite_and_has_no_gradient(p: float) -> None:
    x = np.full((1, 1, 2), np.finfo(np.float64).max)
    spec = PoolSpec("lp", 2, norm_p=p)
    y = forward(x, spec, backend="cupy").output
    assert y.tolist() == [[[np.inf]]]
    assert_exact({"mode": "lp", "kernel": 2, "norm_p": p}, x, 1)
    assert backward(np.ones_like(y), spec, input=x, backend="cupy").tolist() == [[[0, 0]]]


@pytest.mark.parametrize("g", [5, math.nan, math.inf])
@pytest.mark.parametrize("p", [1, 1.5, 2, 7])
@pytest.mark.parametrize("last", [math.nan, 1])
def test_a_column_of_zeros_has_the_gradient_of_other_zeros(last: float, p: float, g: float) -> None:
    x = np.array([[0, 0, 3], [0, 2, last]], np.float32).reshape(1, 1, 2, 3)
    dy = np.full((1, 1, 1, 1), g, np.float32)
    spec = PoolSpec("lp", (2, 3), norm_p=p)
    dx = backward(dy, spec, input=x, backend="cupy").ravel()
    oracle.assert_close(dx, np.array(oracle.norm_shares(g, x.ravel().tolist(), p)), ulps=4)


CASES = [case for case in golden.GOLDEN if case.options["mode"] == "lp"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.number} {case.options}")
def test_golden_cases(case: golden.Golden) -> None:
    spec = PoolSpec(**case.options)
    for dtype in case.dtypes:
        x = golden.tensor(case.x, dtype)
        output = forward(x, spec, backend="cupy").output
        oracle.assert_close(output, golden.tensor(case.y), ulps=2)
        if case.dx is not None:
            dx = backward(golden.tensor(case.dy, dtype), spec, input=x, backend="cupy")
            oracle.assert_close(dx, golden.tensor(case.dx), ulps=0)
