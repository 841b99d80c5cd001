"""The CuPy backend is bit-identical to the NumPy backend, on the shim and on a GPU."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import pooling_engine
from pooling_engine import PoolSpec, backward, forward
from pooling_engine.backends.cupy_backend.planning import kernels, launches
from tests.gpu.support import (
    Array,
    patched_planner,
    positions_of_64_bits,
    several_rows_per_thread,
)
from tests.support import cases, golden, oracle, pairs, palettes

pytestmark = pytest.mark.usefixtures("anywhere")

MODES = tuple(mode for mode in cases.MODES if mode["mode"] != "lp")
POLICIES = tuple(
    {"mode": mode, "nan_policy": policy}
    for mode in ("max", "min")
    for policy in ("ignore", "error")
)
TIES = tuple(
    {"mode": mode, "tie_policy": shared, "nan_policy": policy}
    for mode in ("max", "min")
    for shared in ("all", "split")
    for policy in ("propagate", "ignore", "error")
)
every_type = pytest.mark.parametrize(
    "dtype", palettes.DTYPES + palettes.INTEGERS, ids=lambda dtype: dtype.name
)
every_float = pytest.mark.parametrize("dtype", palettes.DTYPES, ids=lambda dtype: dtype.name)


@st.composite
def channels(draw: st.DrawFn, dtype: np.dtype[Any]) -> int:
    """Draw a number of channels, often as many as a thread reads at once or a multiple."""
    return draw(st.sampled_from((1, 2, 3, 5, 16 // dtype.itemsize, 32 // dtype.itemsize)))


def values(dtype: np.dtype[Any]) -> st.SearchStrategy[Any]:
    """Return a strategy for functions that make a tensor."""
    return st.sampled_from(tuple(palettes.values_of(dtype).values()))


@every_type
@given(st.data())
@settings(cases.many_examples, max_examples=2 * cases.many_examples.max_examples)
def test_any_case(dtype: np.dtype[Any], data: st.DataObject) -> None:
    options, sizes, seed = data.draw(st.integers(1, 3).flatmap(cases.ranked_windows))
    mode = data.draw(st.sampled_from(MODES + MODES + POLICIES))
    value = data.draw(values(dtype))
    planes = data.draw(st.sampled_from((0, 1, 1, 2, 3))), data.draw(channels(dtype))
    pairs.assert_same_calls(
        "cupy", mode | options, value((*planes, *sizes), dtype, seed), value, seed
    )


@every_float
@given(st.data())
@settings(cases.many_examples, max_examples=2 * cases.many_examples.max_examples)
def test_shared_ties(dtype: np.dtype[Any], data: st.DataObject) -> None:
    options, sizes, seed = data.draw(st.integers(1, 3).flatmap(cases.ranked_windows))
    mode = data.draw(st.sampled_from(TIES))
    value = data.draw(values(dtype))
    planes = data.draw(st.sampled_from((0, 1, 1, 2, 3))), data.draw(channels(dtype))
    pairs.assert_same_calls(
        "cupy", mode | options, value((*planes, *sizes), dtype, seed), value, seed
    )


# Overlapping windows: an element sums many gradients along each axis.
OVERLAPPING = (
    ({"kernel": 7, "stride": 1, "padding": 3}, (2, 3, 19)),
    ({"kernel": (5, 4), "stride": (1, 2), "padding": (2, 1), "dilation": (2, 1)}, (2, 3, 11, 9)),
    ({"kernel": (3, 5), "stride": 1, "padding": (1, 2)}, (2, 3, 7, 16)),
    ({"kernel": 3, "stride": (1, 1, 2), "padding": 1}, (1, 2, 4, 5, 16)),
    ({"kernel": (3, 4, 5), "stride": 1, "padding": 2}, (1, 2, 5, 6, 7)),
    ({"kernel": 3, "stride": 1, "padding": 1, "layout": "channels_last"}, (2, 8, 7, 9)),
    ({"adaptive_output": 17}, (2, 3, 5)),
    ({"adaptive_output": (13, 9)}, (2, 2, 3, 4)),
    ({"adaptive_output": (13, 3, 9), "layout": "channels_last"}, (1, 4, 3, 5, 4)),
    ({"global_window": True}, (3, 5, 77)),
)


@pytest.mark.parametrize("is_large", [False, True], ids=["32 bits", "64 bits"])
@pytest.mark.parametrize("policy", ["all", "split"])
@pytest.mark.parametrize(("options", "shape"), OVERLAPPING, ids=cases.name_of)
def test_shared_ties_add_up_in_order(
    policy: str, options: dict[str, Any], shape: tuple[int, ...], is_large: bool
) -> None:
    """All taps are tied and few sums are exact, so the order of additions shows in the bits."""
    spec = PoolSpec("max", tie_policy=policy, **options)
    x = np.ones(cases.to_layout(options, np.empty(shape)).shape)
    dy = cases.normal(pooling_engine.plan(spec, x.shape, x.dtype).output_shape, "float64")
    with patched_planner(positions_of_64_bits) if is_large else nullcontext():
        pairs.assert_same("cupy", backward, dy, spec, input=x)


@st.composite
def rows(draw: st.DrawFn, dtype: np.dtype[Any]) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Draw windows of `rows.cu` along the innermost axis, and any windows along the others."""
    kernel, stride, padding = draw(st.sampled_from(kernels.ROW_WINDOWS))
    count = draw(st.sampled_from(kernels.neighbour_counts(dtype)))
    size = count * draw(st.integers(1, 5)) + draw(st.sampled_from((0, 0, 0, 1)))
    after = draw(st.integers(0, kernel - 1))
    assume(size + padding + after >= kernel)
    others = draw(st.lists(cases.axis_windows(), max_size=2))
    own = (size, kernel, stride, 1, (padding, after))
    sizes, *windows = zip(*others, own, strict=True)
    options = dict(zip(("kernel", "stride", "dilation", "padding"), windows, strict=True))
    return options | {"ceil_mode": draw(st.booleans())}, sizes


@every_type
@given(st.data())
@settings(cases.many_examples, max_examples=2 * cases.many_examples.max_examples)
def test_rows(dtype: np.dtype[Any], data: st.DataObject) -> None:
    assert_same_rows(dtype, data)


@every_float
@given(st.data())
@cases.many_examples
def test_several_rows_per_thread(dtype: np.dtype[Any], data: st.DataObject) -> None:
    with patched_planner(several_rows_per_thread):
        assert_same_rows(dtype, data)


def assert_same_rows(dtype: np.dtype[Any], data: st.DataObject) -> None:
    options, sizes = data.draw(rows(dtype))
    mode = data.draw(st.sampled_from(MODES + POLICIES + TIES))
    value = data.draw(values(dtype))
    shape = data.draw(st.sampled_from((0, 1, 2))), data.draw(st.integers(1, 3)), *sizes
    seed = data.draw(st.integers(0, 999))
    pairs.assert_same_calls("cupy", mode | options, value(shape, dtype, seed), value, seed)


# For each window, numbers of rows that the rows per thread do not divide, and fewer rows than that.
SEVERAL_ROWS = tuple(
    (
        {"kernel": (across, kernel), "stride": (step, stride), "padding": (across // 2, padding)},
        (1, 2, rows, size),
    )
    for kernel, stride, padding in kernels.ROW_WINDOWS
    for across, step, rows in ((kernel, stride, 7), (kernel, stride, 9), (3, 1, 5), (2, 3, 10))
    for size in (16, 24)
)


@every_float
def test_several_rows_per_thread_for_every_window(dtype: np.dtype[Any]) -> None:
    several = set()
    for number, (options, shape) in enumerate(SEVERAL_ROWS):
        for mode in ("max", "average", "sum"):
            options["mode"] = mode
            value = palettes.values_of(dtype)["hard" if number % 2 else "normal"]
            with patched_planner(several_rows_per_thread):
                pairs.assert_same_calls("cupy", options, value(shape, dtype, number), value, number)
                launch = launches.backward_launch(
                    pooling_engine.plan(PoolSpec(**options), shape, dtype), True
                )
                *_, rows = launch.values[-1].view(np.int32)
            if "_row_gradients" in launch.name:
                most = 2 * options["stride"][1]
                assert rows == most if mode == "max" else rows in (1, most)
                several |= {(mode, options["kernel"][1])} if rows > 1 else set()
    assert several >= {("max", kernel) for kernel, *_ in kernels.ROW_WINDOWS}
    assert several >= {("average", 2), ("average", 3)} or dtype.itemsize == 2


@st.composite
def squares(draw: st.DrawFn, dtype: np.dtype[Any]) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Draw square windows of stride 1 with any padding and any number of rows."""
    kernel, _, padding = draw(st.sampled_from([row for row in kernels.ROW_WINDOWS if row[1] == 1]))
    count = draw(st.sampled_from(kernels.neighbour_counts(dtype)))
    columns = count * draw(st.integers(1, 4)) + draw(st.sampled_from((0, 0, 0, 1)))
    before, *after = (draw(st.integers(0, kernel - 1)) for _ in range(3))
    rows = draw(st.integers(max(1, kernel - before - after[0]), 14))
    assume(columns + padding + after[1] >= kernel)
    pads = ((before, after[0]), (padding, after[1]))
    options = {"kernel": (kernel, kernel), "stride": 1, "padding": pads}
    if draw(st.booleans()):
        return options, (rows, columns)
    stride, size = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    options = {"kernel": (1, kernel, kernel), "stride": (stride, 1, 1), "padding": ((0, 0), *pads)}
    return options, (size, rows, columns)


@every_type
@given(st.data())
@cases.many_examples
def test_square_windows(dtype: np.dtype[Any], data: st.DataObject) -> None:
    options, sizes = data.draw(squares(dtype))
    mode = data.draw(st.sampled_from(MODES[:2] + POLICIES + TIES))
    value = data.draw(values(dtype))
    shape = 1, data.draw(st.integers(1, 3)), *sizes
    seed = data.draw(st.integers(0, 999))
    with patched_planner(several_rows_per_thread):
        pairs.assert_same_calls("cupy", mode | options, value(shape, dtype, seed), value, seed)


def ends(shape: tuple[int, ...], dtype: np.dtype[Any], seed: int) -> Array:
    """Return a tensor of the least value above the largest: most windows have only ties."""
    is_float = dtype in palettes.DTYPES
    least, largest = (-np.inf, np.inf) if is_float else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    x = np.full(shape, least, dtype)
    x[..., shape[-2] // 2 :, :] = np.array(largest, dtype)
    return x


CONTENTS = {"normal": None, "hard": None, "bits": None, "ends": ends}


@every_type
@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("kernel", list(kernels.SQUARE_ROWS))
def test_square_windows_of_every_kernel(dtype: np.dtype[Any], mode: str, kernel: int) -> None:
    """Test every pack width and policy, and a last thread with one row, two rows and all rows."""
    spec = PoolSpec(mode, kernel, padding=kernel // 2, stride=1)
    with patched_planner(several_rows_per_thread):
        for count, rows in itertools.product(kernels.neighbour_counts(dtype), (11, 12, 13)):
            shape = 2, 3, rows, count * (1 + 20 // count)
            launch = launches.forward_launch(pooling_engine.plan(spec, shape, dtype), True, True)
            assert launch.name.startswith("select_square_rows<")
            for policy, content in itertools.product(("propagate", "ignore"), CONTENTS):
                value = CONTENTS[content] or palettes.values_of(dtype)[content]
                options = {"mode": mode, "nan_policy": policy, "kernel": kernel}
                options |= {"stride": 1, "padding": kernel // 2}
                x = value(shape, dtype, rows)
                pairs.assert_same_calls("cupy", options, x, value, rows)


# More than one block of threads, planes of more than one run, and every team size.
LARGE = (
    ({"kernel": 3, "stride": 2, "padding": 1}, (1, 2, 60, 70)),
    ({"kernel": (5, 3), "stride": (1, 2), "padding": (2, 0)}, (1, 2, 40, 33)),
    ({"kernel": 2}, (2, 3, 50, 50)),
    ({"kernel": 3, "stride": 1, "padding": 1}, (2, 3, 40, 48)),
    ({"kernel": 5, "stride": 1, "padding": 2}, (1, 2, 30, 32)),
    ({"kernel": (3, 5, 7), "stride": 1, "padding": (1, 2, 3)}, (1, 2, 5, 9, 40)),
    ({"kernel": 31, "stride": 7, "padding": 15}, (1, 2, 1500)),
    ({"kernel": (3, 2, 3), "stride": (1, 2, 2), "padding": 1}, (1, 2, 9, 17, 11)),
    ({"adaptive_output": (7, 9)}, (1, 2, 50, 31)),
    ({"adaptive_output": (7, 9, 4)}, (1, 1, 5, 11, 13)),
    ({"kernel": 3, "stride": 2, "padding": 1, "layout": "channels_last"}, (1, 33, 20, 20)),
    ({"kernel": 3, "stride": 1, "padding": 1, "layout": "channels_last"}, (1, 32, 10, 10)),
    ({"kernel": (9, 7), "stride": 9}, (3, 7, 9, 7)),
    ({"global_window": True}, (3, 7, 7, 7)),
    ({"global_window": True}, (3, 2, 1024)),
    ({"global_window": True}, (3, 2, 1025)),
    ({"global_window": True}, (3, 7, 16, 16)),
    ({"global_window": True}, (3, 6, 2056)),
    ({"global_window": True}, (2, 1, 4097)),
    ({"global_window": True}, (3, 2, 9000)),
    ({"global_window": True}, (2, 1, 40_000)),
    ({"global_window": True}, (1, 1, 140_000)),
    ({"global_window": True, "layout": "channels_last"}, (2, 32, 9, 11)),
)


@every_type
@pytest.mark.parametrize(("options", "shape"), LARGE, ids=cases.name_of)
def test_large_tensors(
    dtype: np.dtype[Any], options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    modes = {"mode": "max"}, {"mode": "min"}, {"mode": "average"}, TIES[0], TIES[-2]
    for number, mode in enumerate(modes):
        for values in ("normal", "hard"):
            value = palettes.values_of(dtype)[values]
            x = value(shape, dtype, number)
            pairs.assert_same_calls("cupy", mode | options, x, value, number)


@every_type
@given(st.data())
@settings(cases.many_examples, max_examples=30)
def test_positions_of_64_bits(dtype: np.dtype[Any], data: st.DataObject) -> None:
    options, sizes, seed = data.draw(st.integers(1, 3).flatmap(cases.ranked_windows))
    mode = data.draw(st.sampled_from(MODES + POLICIES + TIES))
    value = palettes.values_of(dtype)[data.draw(st.sampled_from(("normal", "hard")))]
    x = value((2, data.draw(channels(dtype)), *sizes), dtype, seed)
    with patched_planner(positions_of_64_bits):
        pairs.assert_same_calls("cupy", mode | options, x, value, seed)


# Large windows, one team each: across the edges, without elements, of many sizes.
WIDE = (
    ({"kernel": (8, 9), "stride": (2, 9), "padding": (3, 4)}, (2, 3, 11, 40)),
    ({"kernel": (8, 20), "stride": 8, "dilation": 2, "padding": (7, 19)}, (3, 3, 9, 41)),
    ({"kernel": 70, "stride": 9, "padding": 69, "ceil_mode": True}, (3, 5, 200)),
    ({"kernel": (2, 3, 17), "stride": (1, 2, 8), "padding": 1}, (2, 2, 4, 9, 60)),
    ({"kernel": 8, "stride": (1, 8), "dilation": (3, 1), "padding": (21, 0)}, (2, 3, 1, 24)),
    ({"adaptive_output": 1}, (3, 5, 9, 11)),
    ({"adaptive_output": (2, 3)}, (2, 5, 20, 45)),
    ({"adaptive_output": (1, 7, 2)}, (2, 1, 3, 10, 63)),
)


@every_type
@pytest.mark.parametrize(("options", "shape"), WIDE, ids=cases.name_of)
def test_large_windows(
    dtype: np.dtype[Any], options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    plan = pooling_engine.plan(PoolSpec("sum", **options), shape, dtype)
    launch = launches.forward_launch(plan, False, True)
    if dtype not in palettes.INTEGERS and any(map(plan.scans, plan.axes)):
        assert launch is None  # NumPy computes sums of the order that no CUDA kernel has
    else:
        is_plane = plan.is_global or dtype in palettes.INTEGERS
        assert "_by_teams" in launch.name or (is_plane and "_planes" in launch.name)
    ignoring = {"mode": "max", "nan_policy": "ignore"}
    modes = *MODES, *TIES[3:5], ignoring
    calls = *itertools.product(modes, ("normal", "hard")), (ignoring, "bits")
    for number, (mode, values) in enumerate(calls):
        value = palettes.values_of(dtype)[values]
        x = value(shape, dtype, number)
        pairs.assert_same_calls("cupy", mode | options, x, value, number)


# Elements of one int64 window whose sums just fit or just overflow.
LEAST, MOST = -(2**63), 2**63 - 1
TOTALS = (
    [MOST, -1, 1],
    [MOST, 1, -1],
    [MOST, 1],
    [LEAST, -1],
    [LEAST, -1, 1],
    [2**62, 2**62, -1],
    [2**62] * 5,
    [LEAST] * 4,
    [LEAST, MOST] * 3,
    [[MOST, MOST, MOST]] * 40,
    [[MOST, LEAST, 1]] * 40,
    [[LEAST] * 30, [MOST] * 30] * 20,
)


@pytest.mark.parametrize("mode", ["sum", "average"])
@pytest.mark.parametrize("number", range(len(TOTALS)))
def test_sums_of_integers_overflow_or_are_exact(mode: str, number: int) -> None:
    """Test the kernels for windows, whole planes, teams and channels last."""
    window = np.array(TOTALS[number], np.int64)
    wider = np.concatenate((window, np.ones_like(window)), axis=-1)
    calls = (
        ({"kernel": window.shape}, window),
        ({"kernel": window.shape, "stride": 9}, wider),
        ({"kernel": window.shape, "layout": "channels_last"}, wider),
    )
    for options, plane in calls:
        x = np.stack([np.full_like(plane, 3), plane])[None]
        pairs.assert_same_calls("cupy", {"mode": mode} | options, x, cases.extremes, 1)


DIVISORS = (
    3,
    10_007,
    2**33 + 17,
    1e9 + 0.123,
    1e-300,
    -1e-280,
    1.5e308,
    5e-324,
    0.7,
    -2,
    2.0**1023,
)


@pytest.mark.parametrize("divisor", DIVISORS)
def test_averages_of_int64_are_rounded_once(divisor: float) -> None:
    x = cases.integers((1, 2, 6000), "int64", seed=5)
    x[..., ::2] >>= 13
    x[..., :9] = LEAST, MOST, MOST - 1, 0, 1, -1, 2**54 + 2, -(2**54) - 6, 2**53 + 1
    options = {"mode": "average", "kernel": 1, "divisor_override": divisor}
    pairs.assert_same_calls("cupy", options, x, cases.integers, 1)


CASES = [
    case
    for case in golden.GOLDEN
    if case.outputs is None and case.options["mode"] != "lp" and np.size(case.x) < 1 << 20
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.number} {case.options}")
def test_golden_cases(case: golden.Golden) -> None:
    spec = PoolSpec(**case.options)
    for dtype in case.dtypes:
        x = golden.tensor(case.x, dtype)
        selects = case.options["mode"] != "average"
        result = forward(x, spec, return_indices=selects, index_format="plane", backend="cupy")
        if case.y is not None:
            oracle.assert_close(result.output, golden.tensor(case.y), ulps=0 if selects else 2)
        if case.cells is not None:
            oracle.assert_same_bits(result.indices, golden.tensor(case.cells, "int64"))
        if case.dx is not None:
            residual = {"input": x} if selects else {"input_shape": x.shape}
            dx = backward(golden.tensor(case.dy, dtype), spec, backend="cupy", **residual)
            expected = golden.tensor(case.dx) if case.at is ... else np.float64(case.dx)
            oracle.assert_close(dx[case.at], expected, ulps=0)
