"""Norms of the CuPy backend, within bounds that follow from their arithmetic: shim and card.

For p = 1 and infinity the bits are NumPy's. Else a card's powers are its own, and so are the bits:
the same however a call is cut, and as close to the exact norm as is derived here.
"""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pooling_engine
from pooling_engine import PoolSpec, backward, forward
from pooling_engine.backends.cupy_backend.planning import choosing, geometry, launches
from tests.support import cases, golden, oracle, pairs, palettes

pytestmark = pytest.mark.usefixtures("anywhere")

U = np.longdouble(2) ** -53  # what rounding to float64 changes, of a number
LEAST = np.longdouble(2) ** -1074
MOST = np.finfo(np.longdouble).max
POW = 4  # times U: CUDA's `pow` is within 2 ulp, and an ulp is at most 2 U
EXPONENTS = (1, 2, 3, 1.5, 2.0625, 7, 64, 64.5, 1000, 1e6, math.inf)
every_type = pytest.mark.parametrize("dtype", palettes.DTYPES, ids=lambda dtype: dtype.name)
TABLES = (launches.forward_launch, launches.backward_launch, launches.residual_norm_launch)


def norm(magnitudes, p):
    """The norm in the widest type; NaN where there is one."""
    largest = magnitudes.max(initial=0)
    if not 0 < largest < np.inf or math.isinf(p):
        return largest
    return largest * ((magnitudes / largest) ** p).sum() ** (1 / np.longdouble(p))


def norm_error(p, taps, additions):
    """How far a norm is from the exact one, of its size and in U.

    The terms of the sum: their ratios are rounded once at most, which the power makes p times as
    large; the power takes p - 1 multiplications, or is that of `pow`. The sum: one for each
    addition. All of that is over p after the root, which adds its own; 1 / p is rounded, which is
    as much as log(sum) / p; the sum is at most taps * 2^p. Then the scale.
    """
    if math.isinf(p):
        return 0
    terms = p + max(p - 1 if p <= 64 else 0, POW)
    return (terms + additions + math.log(max(taps, 1))) / p + math.log(2) + POW + 1


def share_error(p, error, ratios):
    """The same for ``ratio^(p - 1)`` times a gradient, where the norm has an error.

    A ratio is that of a magnitude to the norm, rounded once more; least of all float64 is `LEAST`.
    """
    rounding = np.maximum(1, LEAST / (np.maximum(ratios, LEAST) * U))
    power = np.expm1((p - 1) * (error + rounding) * U) / U
    return power + max(p - 2 if p <= 65 else 0, POW) + 1


def additions_of(options, sizes):
    """How many additions a term goes through at most, in the order of any kernel."""
    if options.get("global_window"):
        size = math.prod(sizes)
        return size if options.get("layout") == "channels_last" else 64 + size // 1024 + 6
    return sum(oracle.kernel_of(window) for window in cases.windows_of(options, sizes))


def assert_between(actual, low, high):
    """Whether `actual` is a number of its type that one of the reals in between is rounded to."""
    with np.errstate(all="ignore"):
        low, high = (oracle.to_type(end.astype(np.float64), actual.dtype) for end in (low, high))
    is_right = (low <= actual) & (actual <= high) | np.isnan(actual) & np.isnan(low)
    if not is_right.all():
        where = tuple(map(int, np.argwhere(~is_right)[0]))
        raise AssertionError(f"at {where}: {actual[where]!r} is not {low[where]}..{high[where]}")


def assert_exact(options, x, seed):
    """Both directions, `x` channels first; the gradient of the output is finite and never 0."""
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


def windows(options, x):
    """Of each output its place, and the positions of its taps on elements."""
    axes, sizes = cases.windows_of(options, x.shape[2:]), x.shape[2:]
    shape = oracle.output_shape(x.shape, axes, options.get("ceil_mode", False))
    for place in np.ndindex(shape):
        taps = oracle.taps_of(place[2:], axes)
        yield place, [place[:2] + at for at in taps if oracle.is_valid(at, sizes)]


def norms_between(options, x, p):
    """The least and the largest that the norms may be, before they are rounded."""
    wide, ends = np.abs(x.astype(np.longdouble)), {}
    additions = additions_of(options, x.shape[2:])
    for place, taps in windows(options, x):
        y = norm(np.array([wide[at] for at in taps], np.longdouble), p)
        error = y * norm_error(p, len(taps), additions) * U + (LEAST if p < math.inf else 0)
        ends[place] = (y - error, y + error) if np.isfinite(y) else (y, y)
    shape = tuple(size + 1 for size in max(ends)) if ends else (0,) * x.ndim
    return np.moveaxis(np.array([ends[at] for at in np.ndindex(shape)]).reshape(*shape, 2), -1, 0)


def gradients_between(options, x, dy, p):
    """The same for the gradient."""
    wide, shares = x.astype(np.longdouble), defaultdict(list)
    additions = additions_of(options, x.shape[2:])
    for place, taps in windows(options, x):
        magnitudes = np.abs(np.array([wide[at] for at in taps], np.longdouble))
        y = norm(magnitudes, p)
        if y == 0:
            continue
        ratios = np.where(magnitudes == y, 1, magnitudes / y)
        g = dy[place].astype(np.longdouble)
        error = norm_error(p, len(taps), additions) + LEAST / (y * U)
        sent = g * ratios ** (p - 1)
        error = np.minimum(share_error(p, error, ratios), MOST)  # nothing of a share that is 0
        slack = np.minimum(np.abs(sent) * error * U, abs(g)) + (abs(g) + 1) * LEAST
        for at, *share in zip(taps, sent, slack, strict=True):
            shares[at].append(share)
    low, high = np.zeros((2, *x.shape), np.longdouble)
    for at, received in shares.items():
        total = sum(share for share, _ in received) * np.sign(wide[at])
        spread = sum(error for _, error in received)
        spread += len(received) * U * sum(abs(share) for share, _ in received)
        low[at], high[at] = total - spread, total + spread
    return low, high


def test_the_reference_is_wider_than_float64():
    assert np.finfo(np.longdouble).nmant >= 63


@every_type
@given(st.data())
@settings(cases.many_examples, max_examples=60)
def test_any_case(dtype, data):
    options, sizes, seed = data.draw(st.integers(1, 3).flatmap(cases.ranked_windows))
    p = data.draw(st.sampled_from(EXPONENTS) | st.floats(1, 100))
    value = palettes.VALUES[data.draw(st.sampled_from(tuple(palettes.VALUES)))]
    planes = data.draw(st.sampled_from((1, 1, 2))), data.draw(st.sampled_from((1, 2, 8)))
    options |= {"mode": "lp", "norm_p": p}
    assert_exact(options, value((*planes, *sizes), dtype, seed), seed + 1)


@every_type
@given(st.data())
@settings(cases.many_examples, max_examples=60)
def test_p_of_1_and_infinity(dtype, data):
    """The bits are NumPy's, whose order that of sums is, but for global windows."""
    options, sizes, seed = data.draw(st.integers(1, 3).flatmap(cases.ranked_windows))
    p = math.inf if "global_window" in options else data.draw(st.sampled_from((1, math.inf)))
    value = palettes.VALUES[data.draw(st.sampled_from(tuple(palettes.VALUES)))]
    planes = data.draw(st.sampled_from((0, 1, 2))), data.draw(st.sampled_from((1, 2, 8)))
    x = value((*planes, *sizes), dtype, seed)
    pairs.assert_same_calls("cupy", options | {"mode": "lp", "norm_p": p}, x, cases.normal, seed)


# Large windows and whole planes, each for a team of threads.
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
def test_teams(dtype, options, shape):
    for p, values in ((1, "hard"), (2, "normal"), (2.5, "huge"), (3, "tiny"), (math.inf, "hard")):
        options = options | {"mode": "lp", "norm_p": p}
        plan = pooling_engine.plan(PoolSpec(**options), shape, dtype)
        assert launches.forward_launch(plan, False, True).file == "norm_teams.cu"
        x = palettes.VALUES[values](shape, dtype, 1)
        assert_exact(options, x, 2)
        if math.isinf(p):
            pairs.assert_same_calls("cupy", options, x, cases.normal, 1)


def both_ways(options, x, p):
    spec, given = PoolSpec("lp", norm_p=p, **options), cases.to_layout(options, x)
    y = forward(given, spec, backend="cupy").output
    return y, backward(cases.normal(y.shape, x.dtype, 1), spec, input=given, backend="cupy")


def no_team(patch):
    patch.setattr(launches, "team_size", lambda plan: None)


def long_positions(patch):
    patch.setattr(geometry, "MAX_POSITIONS_32", 0)


def no_packs(patch):
    patch.setattr(
        launches,
        "general_variant",
        lambda plan, _, of_input: choosing.general_variant(plan, False, of_input),
    )
    patch.setattr(launches, "_pack", lambda *_, **__: 1)


WAYS = (no_team, long_positions, no_packs)
LAST = {"kernel": (3, 2), "stride": 2, "padding": 1, "layout": "channels_last"}


@every_type
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_bits_are_the_same_in_every_way(dtype, way):
    for (options, shape), p in zip((*TEAMS, (LAST, (2, 16, 7, 5))), EXPONENTS, strict=False):
        x = cases.normal(shape, dtype)
        expected = both_ways(options, x, p)
        with pytest.MonkeyPatch.context() as patch:
            way(patch)
            for table in TABLES:
                table.cache_clear()
            given = both_ways(options, x, p)
        for table in TABLES:
            table.cache_clear()
        for one, other in zip(given, expected, strict=True):
            oracle.assert_same_bits(one, other)


@every_type
def test_the_bits_are_those_of_each_plane_alone(dtype):
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
def test_the_bits_are_those_of_bands(dtype, kernel):
    """Outputs 2 to 4 from the rows of their windows, and the gradient of rows that no other has."""
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
def test_what_is_infinite_or_no_number(dtype, p):
    """An infinite tap takes the whole gradient of its window; a NaN spoils its window alone."""
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


@pytest.mark.parametrize("g", [5, math.nan, math.inf])
@pytest.mark.parametrize("p", [1, 1.5, 2, 7])
@pytest.mark.parametrize("last", [math.nan, 1])
def test_a_column_of_zeros_has_the_gradient_of_other_zeros(last, p, g):
    x = np.array([[0, 0, 3], [0, 2, last]], np.float32).reshape(1, 1, 2, 3)
    dy = np.full((1, 1, 1, 1), g, np.float32)
    spec = PoolSpec("lp", (2, 3), norm_p=p)
    dx = backward(dy, spec, input=x, backend="cupy").ravel()
    oracle.assert_close(dx, np.array(oracle.norm_shares(g, x.ravel().tolist(), p)), ulps=4)


CASES = [case for case in golden.GOLDEN if case.options["mode"] == "lp"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.number} {case.options}")
def test_golden_cases(case):
    spec = PoolSpec(**case.options)
    for dtype in case.dtypes:
        x = golden.tensor(case.x, dtype)
        output = forward(x, spec, backend="cupy").output
        oracle.assert_close(output, golden.tensor(case.y), ulps=2)
        if case.dx is not None:
            dx = backward(golden.tensor(case.dy, dtype), spec, input=x, backend="cupy")
            oracle.assert_close(dx, golden.tensor(case.dx), ulps=0)
