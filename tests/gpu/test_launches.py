"""Launches of plans: kernel, number of blocks, integers of the windows."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import pooling_engine
from pooling_engine import NanPolicy, PoolSpec, TiePolicy
from pooling_engine.backends.cupy_backend.planning import geometry, kernels
from pooling_engine.backends.cupy_backend.planning.kernels import all_kernels
from pooling_engine.backends.cupy_backend.planning.launches import (
    backward_launch,
    forward_launch,
    residual_norm_launch,
    tie_share_launch,
)
from tests.gpu.support import LAST
from tests.support import cases, palettes

NAMES = set(all_kernels())
HUGE = 2**31  # more positions than 32 bits number; nothing of that size is allocated


def forward_name(
    options: dict[str, Any],
    shape: tuple[int, ...],
    dtype: str = "float32",
    has_indices: bool = False,
    is_aligned: bool = True,
) -> str | None:
    launch = forward_launch(
        pooling_engine.plan(PoolSpec(**options), shape, dtype), has_indices, is_aligned
    )
    return launch and launch.name


@given(st.integers(1, 2**31 - 1), st.integers(0, 2**31 - 1))
@cases.many_examples
def test_a_multiplication_and_a_shift_replace_a_division(value: int, number: int) -> None:
    assert_divides(value, number)


@pytest.mark.parametrize("value", [1, 2, 3, 7, 2**30, 2**30 + 1, 2**31 - 1])
def test_a_multiplication_replaces_a_division_of_extreme_numbers(value: int) -> None:
    for number in (0, 1, value - 1, value, 2**31 - 2, 2**31 - 1):
        assert_divides(value, number)


def assert_divides(value: int, number: int) -> None:
    """Divide as `Divisor` in `windows.cuh` does."""
    _, multiplier, shift = geometry.divisor_integers(value, is_fast=True)
    high = (number * (multiplier % 2**32)) >> 32
    assert high + number < 2**32
    assert (high + number) >> shift == number // value


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    st.booleans(),
    st.integers(1, 4),
    st.integers(1, 4),
)
@cases.many_examples
def test_every_position_belongs_to_one_thread(
    sizes: list[int], of_input: bool, rows: int, neighbours: int
) -> None:
    plan = pooling_engine.plan(PoolSpec("sum", kernel=1, stride=2), (2, 3, *sizes), "float32")
    share = geometry.ThreadWork(of_input, neighbours=neighbours, rows=rows)
    integers = geometry.packed_windows(plan, np.int64, share, rule=0).view(np.int64)
    assert integers[-1] == rows
    own = integers[: 3 * 16].reshape(3, 16)[:, 7]
    _, *positions, _ = plan.input_block_shape if of_input else plan.output_block_shape
    taken = np.zeros((plan.outer, *[1] * (3 - len(positions)), *positions), int)
    threads = np.arange(geometry.thread_count(plan, share))
    plane, *at = np.unravel_index(threads, (plan.outer, *own))
    for row, column in np.ndindex(rows, neighbours):
        y, x = at[1] * rows + row, at[2] * neighbours + column
        is_within = (y < taken.shape[2]) & (x < taken.shape[3])
        np.add.at(taken, tuple(each[is_within] for each in (plane, at[0], y, x)), 1)
    assert (taken == 1).all()


@pytest.mark.parametrize(
    ("options", "shape", "name"),
    [
        ({"kernel": 4}, (1, 1, 8), "select_windows<float, None, Larger, false, 2, false, i32, 1>"),
        (
            {"mode": "min", "kernel": 4, "nan_policy": "ignore"},
            (1, 1, 8, 8),
            "select_windows<float, None, Smaller, true, 2, false, i32, 1>",
        ),
        ({"mode": "sum", "kernel": 4}, (1, 1, 8, 8, 8), "sum_windows<float, 3, false, i32, 1>"),
        ({"mode": "sum", "kernel": 2} | LAST, (1, 8, 8), "sum_windows<float, 2, false, i32, 4>"),
        ({"mode": "sum", "kernel": 2} | LAST, (1, 8, 6), "sum_windows<float, 2, false, i32, 1>"),
        ({"mode": "sum", "kernel": 4} | LAST, (1, 8, 1), "sum_windows<float, 2, false, i32, 1>"),
        ({"mode": "sum", "adaptive_output": 3}, (1, 1, 8), "sum_windows<float, 3, true, i32, 1>"),
        ({"mode": "sum", "adaptive_output": 2}, (1, 1, 8), "sum_windows<float, 2, false, i32, 1>"),
        ({"mode": "sum", "kernel": 2}, (1, 1, HUGE), "sum_windows<float, 3, true, i64, 1>"),
        ({"mode": "sum", "kernel": 2} | LAST, (1, HUGE, 4), "sum_windows<float, 3, true, i64, 1>"),
        ({"kernel": 2}, (1, 1, 8, 8), "select_rows<float, None, Larger, false, 2, 2, 0, 4>"),
        ({"kernel": 2}, (1, 1, 8, 12), "select_rows<float, None, Larger, false, 2, 2, 0, 2>"),
        (
            {"kernel": 2},
            (1, 1, 8, 7),
            "select_rows<float, None, Larger, false, 2, 2, 0, 1>",
        ),
        ({"mode": "sum", "kernel": 3, "stride": 2}, (1, 1, 16), "sum_rows<float, 3, 2, 0, 4>"),
        ({"mode": "sum", "kernel": 3, "stride": 2}, (1, 1, 12), "sum_rows<float, 3, 2, 0, 2>"),
        (
            {"mode": "sum", "kernel": (7, 7, 7), "stride": 1, "padding": 3},
            (1, 1, 8, 8, 8),
            "sum_rows<float, 7, 1, 3, 4>",
        ),
        (
            {"kernel": (7, 7, 7), "stride": 1, "padding": 3},
            (1, 1, 8, 8, 8),
            "select_windows<float, None, Larger, false, 3, false, i32, 1>",
        ),
        (
            {"kernel": 3, "stride": 2, "dilation": 2},
            (1, 1, 8),
            "select_windows<float, None, Larger, false, 2, false, i32, 1>",
        ),
        ({"mode": "sum", "kernel": 8}, (1, 1, 16, 16), "sum_by_teams<float, 8>"),
        ({"mode": "sum", "adaptive_output": 1}, (1, 1, 17, 17), "sum_planes<float, 16, 1>"),
        (
            {"mode": "sum", "kernel": 8, "stride": 1},
            (4, 4, 71, 71),
            "sum_windows<float, 2, false, i32, 1>",
        ),
        (
            {"mode": "sum", "kernel": 8} | LAST,
            (1, 16, 16, 2),
            "sum_windows<float, 2, false, i32, 1>",
        ),
        ({"mode": "sum", "global_window": True}, (1, 1, 32, 32), "sum_planes<float, 16, 1>"),
        ({"mode": "sum", "global_window": True}, (1, 1, 33, 33), "sum_planes<float, 64, 1>"),
        ({"mode": "sum", "global_window": True}, (1, 1, 65, 65), "sum_planes<float, 256, 1>"),
        ({"mode": "sum", "global_window": True}, (1, 1, 32, 33), "sum_planes<float, 16, 4>"),
        ({"mode": "sum", "global_window": True}, (1, 1, 64, 65), "sum_planes<float, 64, 4>"),
        (
            {"global_window": True},
            (1, 1, 7, 7),
            "select_planes<float, None, Larger, false, 32, 1>",
        ),
        ({"kernel": 8}, (1, 1, 8, 8), "select_planes<float, None, Larger, false, 32, 1>"),
        ({"kernel": 12}, (1, 1, 12, 12), "select_planes<float, None, Larger, false, 32, 4>"),
        ({"kernel": 33}, (1, 1, 33, 33), "select_planes<float, None, Larger, false, 256, 1>"),
        ({"kernel": 34}, (1, 1, 34, 34), "select_planes<float, None, Larger, false, 256, 4>"),
        (
            {"kernel": 33, "stride": 1},
            (1, 1, 33, 34),
            "select_by_teams<float, None, Larger, false, 32>",
        ),
        (
            {"mode": "lp", "kernel": 2},
            (1, 1, 8),
            "norm_windows<float, float, SQUARES, 2, false, i32, 1>",
        ),
        (
            {"mode": "lp", "norm_p": 1, "kernel": 2} | LAST,
            (1, 8, 8),
            "norm_windows<float, float, MAGNITUDES, 2, false, i32, 4>",
        ),
        (
            {"mode": "lp", "norm_p": math.inf, "kernel": 8},
            (1, 1, 16, 16),
            "norm_by_teams<float, float, LARGEST, 8>",
        ),
        (
            {"mode": "lp", "norm_p": 3, "global_window": True},
            (1, 1, 7, 7),
            "norm_planes<float, float, POWERS, 32, 1>",
        ),
        (
            {"mode": "lp", "norm_p": 1.5, "global_window": True},
            (1, 1, 34, 34),
            "norm_planes<float, float, POWERS, 256, 4>",
        ),
        (
            {"kernel": 3, "padding": ((1, 0),)},
            (1, 1, 3),
            "select_windows<float, None, Larger, false, 2, false, i32, 1>",
        ),
    ],
    ids=cases.name_of,
)
def test_the_kernel_of_a_plan(options: dict[str, Any], shape: tuple[int, ...], name: str) -> None:
    assert forward_name({"mode": "max"} | options, shape) == name


@pytest.mark.parametrize(
    ("options", "shape", "dtype", "name"),
    [
        (
            {"kernel": 4},
            (1, 1, 8),
            "i1",
            "select_windows<i8, None, Larger, false, 3, true, i32, 1>",
        ),
        (
            {"kernel": 2, "nan_policy": "ignore"} | LAST,
            (1, 8, 16),
            "u1",
            "select_windows<u8, None, Larger, false, 3, true, i32, 16>",
        ),
        ({"kernel": 2}, (1, 1, 16), "u1", "select_rows<u8, None, Larger, false, 2, 2, 0, 8>"),
        ({"kernel": 2}, (1, 1, 16), "i8", "select_rows<i64, None, Larger, false, 2, 2, 0, 1>"),
        (
            {"kernel": 2},
            (1, 1, 12),
            "i1",
            "select_windows<i8, None, Larger, false, 3, true, i32, 1>",
        ),
        ({"mode": "sum", "kernel": 2}, (1, 1, 16), "i4", "sum_integers<i32, i64, 3, true, i32, 1>"),
        (
            {"mode": "average", "kernel": 2} | LAST,
            (1, 8, 8),
            "i2",
            "sum_integers<i16, float, 3, true, i32, 8>",
        ),
        (
            {"mode": "sum", "kernel": 2},
            (1, 1, HUGE),
            "i8",
            "sum_integers<i64, i64, 3, true, i64, 1>",
        ),
        ({"mode": "sum", "kernel": 8}, (1, 1, 16, 16), "u1", "sum_integers_by_teams<u8, i64, 8>"),
        (
            {"mode": "sum", "global_window": True},
            (1, 1, 64, 64),
            "u1",
            "sum_integer_planes<u8, i64, 256, 16>",
        ),
        (
            {"mode": "average", "kernel": 7},
            (1, 1, 7, 7),
            "i1",
            "sum_integer_planes<i8, float, 32, 1>",
        ),
    ],
    ids=cases.name_of,
)
def test_the_kernel_of_a_plan_of_integers(
    options: dict[str, Any], shape: tuple[int, ...], dtype: str, name: str
) -> None:
    assert forward_name({"mode": "max"} | options, shape, dtype) == name


@pytest.mark.parametrize(
    ("options", "shape", "name"),
    [
        (
            {"kernel": 3},
            (64, 64, 114, 112),
            "select_square_rows<float, None, Larger, false, 3, 1, 1, 4, 3>",
        ),
        (
            {"kernel": 5},
            (64, 64, 112, 112),
            "select_square_rows<float, None, Larger, false, 5, 1, 2, 4, 4>",
        ),
        ({"kernel": 7}, (2**18, 4, 2), "select_rows<float, None, Larger, false, 7, 1, 3, 2>"),
        (
            {"kernel": 7},
            (2**18, 1, 4, 2),
            "select_square_rows<float, None, Larger, false, 7, 1, 3, 2, 4>",
        ),
        (
            {"kernel": 7},
            (2**18 - 1, 1, 4, 2),
            "select_rows<float, None, Larger, false, 7, 1, 3, 2>",
        ),
        ({"kernel": 7}, (2**18, 1, 5, 2), "select_rows<float, None, Larger, false, 7, 1, 3, 2>"),
        (
            {"kernel": (1, 3, 3), "padding": (0, 1, 1)},
            (2**18, 1, 2, 3, 4),
            "select_square_rows<float, None, Larger, false, 3, 1, 1, 4, 3>",
        ),
        ({"kernel": 3}, (2**18, 1, 2, 3, 4), "select_rows<float, None, Larger, false, 3, 1, 1, 4>"),
        (
            {"kernel": (5, 3), "padding": (2, 1)},
            (2**18, 1, 9, 4),
            "select_rows<float, None, Larger, false, 3, 1, 1, 4>",
        ),
        (
            {"kernel": 3, "stride": (2, 1)},
            (2**18, 1, 9, 4),
            "select_rows<float, None, Larger, false, 3, 1, 1, 4>",
        ),
        (
            {"kernel": 3, "stride": 2},
            (2**18, 1, 9, 4),
            "select_rows<float, None, Larger, false, 3, 2, 1, 2>",
        ),
        (
            {"kernel": 3, "dilation": (2, 1)},
            (2**18, 1, 9, 4),
            "select_rows<float, None, Larger, false, 3, 1, 1, 4>",
        ),
    ],
    ids=cases.name_of,
)
def test_square_windows_share_rows_if_outputs_suffice(
    options: dict[str, Any], shape: tuple[int, ...], name: str
) -> None:
    """The windows must be square and of stride 1, and the outputs must occupy a large GPU."""
    options = {"mode": "max", "stride": 1, "padding": options["kernel"]} | options
    if isinstance(options["padding"], int):
        options["padding"] //= 2
    assert forward_name(options, shape) == name
    assert name in {each for _, each in NAMES}


def test_unaligned_arrays_are_read_element_by_element() -> None:
    options = {"mode": "max", "kernel": 2}
    assert forward_name(options | LAST, (1, 8, 16), "float16").endswith("i32, 8>")
    assert forward_name(options | LAST, (1, 8, 16), "float16", is_aligned=False).endswith("i32, 1>")
    whole = {"mode": "max", "global_window": True}, (1, 8, 4096), "float16"
    assert forward_name(*whole).endswith("256, 8>")
    assert forward_name(*whole, is_aligned=False).endswith("256, 1>")
    assert forward_name(options, (1, 8, 16), "float16").endswith("2, 2, 0, 8>")
    assert forward_name(options, (1, 8, 16), "float16", is_aligned=False).endswith("2, 2, 0, 1>")


def test_row_gradients_need_whole_packs() -> None:
    """Otherwise a thread computes one element."""
    for kernel, stride, padding in kernels.ROW_WINDOWS:
        for size in range(1, 40):
            if size + 2 * padding < kernel:
                continue
            plan = pooling_engine.plan(
                PoolSpec("sum", kernel, stride, padding), (1, 1, size), "float32"
            )
            (outputs,) = plan.output_shape[2:]
            whole = [
                n for n in (4, 2) if size % n == n % stride == 0 and outputs % (n // stride) == 0
            ]
            singly = [1] if stride == 1 else []
            for is_aligned, counts in ((True, whole + singly), (False, singly)):
                row = f"sum_row_gradients<float, {kernel}, {stride}, {padding}, {counts[:1]}>"
                cell = "sum_gradients<float, 2, false, i32, 1>"
                name = row.replace("[", "").replace("]", "") if counts else cell
                assert backward_launch(plan, is_aligned).name == name


@pytest.mark.parametrize(
    ("options", "shape", "dtype"),
    [
        ({"mode": "max", "kernel": 2}, (1, 1, 2, 2, 2, 2), "float32"),
    ],
    ids=cases.name_of,
)
def test_more_than_three_axes_have_no_kernel(
    options: dict[str, Any], shape: tuple[int, ...], dtype: str
) -> None:
    assert forward_name(options, shape, dtype) is None
    assert backward_launch(pooling_engine.plan(PoolSpec(**options), shape, dtype), True) is None


@pytest.mark.parametrize("mode", ["average", "sum"])
def test_scanned_sums_of_floats_have_no_kernel(mode: str) -> None:
    """The CUDA kernels add tap by tap; NumPy computes such calls in the order of a scan."""
    spec = PoolSpec(mode, 31, 1)
    for dtype, has_kernel in (("float16", False), ("float64", False), ("int8", True)):
        plan = pooling_engine.plan(spec, (1, 1, 40, 40), dtype)
        assert (forward_launch(plan, False, True) is not None) == has_kernel
        spanned = pooling_engine.plan(spec, (1, 1, 31, 31), dtype)
        assert forward_launch(spanned, False, True) is not None


@pytest.mark.parametrize(
    ("options", "shape", "share", "name"),
    [
        (
            {"kernel": 2, "tie_policy": "all"},
            (1, 1, 8),
            "share_rows<float, false, 2, 2, 0, 4>",
            "tie_row_gradients<float, float, false, 2, 2, 0, 4>",
        ),
        (
            {"kernel": 2, "tie_policy": "split"},
            (1, 1, 7),
            "share_rows<float, false, 2, 2, 0, 1>",
            "tie_gradients<float, double, false, 2, false, i32, 1>",
        ),
        (
            {"kernel": 3, "stride": 3, "tie_policy": "all", "nan_policy": "error"},
            (1, 1, 8),
            "share_windows<float, false, 2, false, i32, 1>",
            "tie_gradients<float, float, false, 2, false, i32, 1>",
        ),
        (
            {"kernel": 2, "tie_policy": "split", "nan_policy": "ignore"} | LAST,
            (1, 8, 8, 8, 4),
            "share_windows<float, true, 3, false, i32, 4>",
            "tie_gradients<float, double, true, 3, false, i32, 4>",
        ),
        (
            {"mode": "min", "kernel": 3, "tie_policy": "split"},
            (1, 1, HUGE),
            "share_windows<float, false, 3, true, i64, 1>",
            "tie_gradients<float, double, false, 3, true, i64, 1>",
        ),
        (
            {"kernel": 8, "tie_policy": "split"},
            (1, 1, 16, 16),
            "share_by_teams<float, false, 8>",
            "tie_gradients<float, double, false, 2, false, i32, 1>",
        ),
        (
            {"global_window": True, "tie_policy": "split"},
            (1, 1, 33, 33),
            "share_by_teams<float, false, 32>",
            "tie_gradients<float, double, false, 2, false, i32, 1>",
        ),
    ],
    ids=cases.name_of,
)
def test_the_kernels_of_shared_ties(
    options: dict[str, Any], shape: tuple[int, ...], share: str, name: str
) -> None:
    plan = pooling_engine.plan(PoolSpec(**{"mode": "max"} | options), shape, "float32")
    assert tie_share_launch(plan, True).name == share
    assert backward_launch(plan, True).name == name


def test_shared_ties_need_no_indices() -> None:
    """Windows of more taps than 32 bits number have no indices that a kernel could read."""
    ties, first = (
        pooling_engine.plan(
            PoolSpec("max", global_window=True, tie_policy=policy), (1, 1, 2 * HUGE), "float32"
        )
        for policy in ("all", "first")
    )
    assert backward_launch(ties, True) is not None
    assert backward_launch(first, True) is None


def test_gradients_by_indices_have_no_kernel_if_windows_are_empty() -> None:
    """An empty window has no valid index, and no thread would check it."""
    shape = (1, 1, 1, 8), "float32"
    options = {"kernel": 2, "stride": 1, "dilation": 2, "padding": 1}
    maximum, total = (
        pooling_engine.plan(PoolSpec(mode, **options), *shape) for mode in ("max", "sum")
    )
    assert forward_launch(maximum, True, True) is not None
    assert backward_launch(maximum, True) is None
    assert backward_launch(total, True) is not None


@given(
    st.integers(1, 3).flatmap(cases.ranked_windows),
    st.sampled_from(palettes.DTYPES + palettes.INTEGERS),
    st.sampled_from(("max", "min", "sum", "average", 1, 2, 3, math.inf)),
    st.sampled_from((1, 2, 4, 8)),
    st.booleans(),
    st.sampled_from(tuple(TiePolicy)),
    st.sampled_from(tuple(NanPolicy)),
)
@cases.many_examples
def test_every_launch_has_a_compiled_kernel(
    window: tuple[dict[str, Any], tuple[int, ...], int],
    dtype: np.dtype[Any],
    mode: str | float,
    channels: int,
    is_aligned: bool,
    ties: TiePolicy,
    nans: NanPolicy,
) -> None:
    options, sizes, _ = window
    is_float = dtype in palettes.DTYPES
    assume(is_float or isinstance(mode, str))  # integers have no norms and no gradient
    if not isinstance(mode, str):  # p of a norm
        options, mode = options | {"norm_p": mode}, "lp"
    shape = cases.to_layout(options, np.empty((2, channels, *sizes), np.bool_)).shape
    plan = pooling_engine.plan(PoolSpec(mode, **options), shape, dtype)
    launches = [forward_launch(plan, plan.selects, is_aligned)]
    others = replace(plan, tie_policy=ties, nan_policy=nans) if plan.selects else plan
    if plan.selects:
        launches += [forward_launch(others, False, is_aligned)]
    if plan.selects and is_float:
        launches += [tie_share_launch(others, is_aligned)]
    limits = (axis.tap_limits() for axis in plan.axes)
    has_empty_windows = any((first >= stop).any() for first, stop in limits)
    for each in (plan, others) if is_float else ():
        gradient = backward_launch(each, is_aligned)
        if each.selects and not each.shares_ties and has_empty_windows:
            assert gradient is None
        else:
            launches += [gradient]
    if mode == "lp":
        launches.append(residual_norm_launch(plan, is_aligned))
    assert {(launch.file, launch.name) for launch in launches} <= NAMES
    values = [value for launch in launches for value in launch.values]
    assert {np.size(value) for value in values} <= {1}, "CuPy passes no others by value"


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"kernel": 1}, (2, 1, 2**30)),
        ({"kernel": 2, "stride": 1, "dilation": 2**31 - 1, "padding": 2**31 - 1}, (1, 1, 4)),
        ({"kernel": 1, "stride": 2**31 - 1}, (1, 1, 4)),
        ({"adaptive_output": 75_000}, (1, 1, 50_000)),
        (
            {"kernel": (2, 1), "stride": 2**17, "dilation": (2**17, 1), "padding": (2**17 - 1, 0)},
            (1, 1, 4, 2**15),
        ),
    ],
    ids=cases.name_of,
)
def test_tensors_that_need_positions_of_64_bits(
    options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    assert ", i64, " in forward_name({"mode": "sum"} | options, shape)
