"""Kernels that gather by indices find every invalid index, on the shim."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pooling_engine
from pooling_engine import InvalidTensorError, PoolSpec, forward
from pooling_engine.backends.cupy_backend.planning import kernels
from pooling_engine.backends.cupy_backend.planning.launches import backward_launch
from pooling_engine.plans.indices import check_window_indices
from pooling_engine.plans.plan import PoolPlan
from tests.gpu import shim
from tests.gpu.support import (
    LAST,
    Array,
    patched_planner,
    positions_of_64_bits,
    several_rows_per_thread,
)
from tests.support import cases

pytestmark = pytest.mark.usefixtures("every_kernel")

ROWS = tuple(
    ({"kernel": kernel, "stride": stride, "padding": [other, (padding, after)]}, (1, 2, 7, size))
    for kernel, stride, padding in kernels.ROW_WINDOWS
    for other, after, size in ((0, padding, 16), (padding, kernel - 1, 17), (padding, padding, 8))
)
ANY = (
    ({"kernel": (2, 3, 3), "stride": (2, 1, 1), "padding": 1}, (1, 1, 4, 5, 8)),
    ({"kernel": 3, "stride": 1, "padding": [(4, 4), (1, 1)], "dilation": (2, 1)}, (1, 2, 9, 8)),
    ({"kernel": 4, "stride": 3, "padding": 3, "ceil_mode": True}, (2, 1, 9, 11)),
    ({"kernel": 3, "stride": 2, "padding": 4, "dilation": 3}, (1, 1, 12, 9)),
    ({"kernel": 3, "stride": 2, "padding": 1} | LAST, (1, 16, 7, 6)),
    ({"kernel": 2} | LAST, (1, 3, 7, 6)),
    ({"kernel": 9, "stride": 2, "padding": 5}, (3, 1, 40)),
    ({"kernel": 17, "stride": 5, "padding": 8}, (1, 1, 20, 20)),
    ({"kernel": (3, 22_000), "stride": 2, "padding": (1, 21_990)}, (1, 1, 3, 11)),
    ({"adaptive_output": (3, 7)}, (1, 2, 10, 5)),
    ({"adaptive_output": (2, 3, 2)}, (1, 1, 5, 4, 3)),
)


def assert_invalid_are_found(options: dict[str, Any], shape: tuple[int, ...], seed: int) -> str:
    """Replace one index after the other by a valid or invalid number; return the kernel's name."""
    random = np.random.default_rng(seed)
    spec = PoolSpec("max", **options)
    x = cases.to_layout(options, random.normal(size=shape).astype(np.float32))
    indices = forward(x, spec, return_indices=True, backend="numpy").indices
    assert indices is not None
    plan = pooling_engine.plan(spec, x.shape, x.dtype)
    dy, dx = np.ones(indices.shape, np.float32), np.empty_like(x)
    launch = backward_launch(plan, True)
    assert launch is not None
    top, counts = np.iinfo(indices.dtype).max, [0, 0]
    for entry in (None, *random.integers(indices.size, size=150)):
        sent, flag = indices.copy(), np.zeros(1, np.int32)
        if entry is not None:
            valid = random.integers(plan.taps)
            sent.flat[entry] = random.choice((valid, valid, valid, plan.taps, top - 1, top))
        shim.run(launch, dy, sent, dx, flag)
        assert bool(flag[0]) == is_rejected(plan, sent)
        counts[flag[0]] += 1
    assert min(counts) > 5
    return launch.name


def is_rejected(plan: PoolPlan, indices: Array) -> bool:
    try:
        check_window_indices(plan, indices)
    except InvalidTensorError:
        return True
    return False


@pytest.mark.parametrize(("options", "shape"), [*ROWS, *ANY], ids=cases.name_of)
def test_invalid_indices_set_the_flag(options: dict[str, Any], shape: tuple[int, ...]) -> None:
    assert_invalid_are_found(options, shape, 1)


def test_the_table_has_kernels_of_both_kinds() -> None:
    of_rows = set()
    for options, shape in ROWS:
        plan = pooling_engine.plan(PoolSpec("max", **options), shape, "float32")
        launch = backward_launch(plan, True)
        assert launch is not None
        of_rows |= {launch.name} if launch.file == "rows.cu" else set()
    assert len(of_rows) > len(kernels.ROW_WINDOWS)


@pytest.mark.parametrize(("options", "shape"), ROWS, ids=cases.name_of)
def test_invalid_indices_with_several_rows_per_thread(
    options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    with patched_planner(several_rows_per_thread):
        assert_invalid_are_found(options, shape, 3)


@pytest.mark.parametrize(("options", "shape"), ANY, ids=cases.name_of)
def test_invalid_indices_with_positions_of_64_bits(
    options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    with patched_planner(positions_of_64_bits):
        assert "i64" in assert_invalid_are_found(options, shape, 2)
