"""The shim gives a wrong result if a kernel lacks a barrier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import pooling_engine
from pooling_engine import Mode, PoolSpec, forward
from pooling_engine.backends.cupy_backend.planning.launches import forward_launch, tie_share_launch
from tests.gpu import shim
from tests.gpu.support import Array
from tests.support import cases, oracle

SPEC, SHAPE = PoolSpec("sum", kernel=(8, 70), stride=18), (1, 5, 8, 200)
BARRIER = "  __syncthreads();\n"


Results = tuple[Array, Array]  # of the shim, of NumPy


def sums() -> Results:
    """Sum by teams of 32 threads, each with three columns."""
    x, plan = cases.normal(SHAPE), pooling_engine.plan(SPEC, SHAPE, "float32")
    output = np.zeros(plan.output_shape, np.float32)
    launch = forward_launch(plan, False, True)
    assert launch.name == "sum_by_teams<float, 32>"
    shim.run(launch, x, output)
    return output, forward(x, SPEC, backend="numpy").output


def tie_shares() -> Results:
    """Divide by the number of taps that are 1, counted by teams of 32 threads."""
    x = cases.hard(SHAPE, has_nan=False)
    plan = replace(pooling_engine.plan(SPEC, SHAPE, "float32"), mode=Mode.MAX)
    ones, shares = np.ones(plan.output_shape, np.float32), np.zeros(plan.output_shape)
    launch = tie_share_launch(plan, True)
    assert launch.name == "share_by_teams<float, false, 32>"
    shim.run(launch, x, ones, ones, shares)
    counts = forward((x == 1).astype(np.float32), SPEC, backend="numpy").output
    return shares, 1 / counts.astype(np.float64)


def norms(options: dict[str, Any], shape: tuple[int, ...], kernel: str) -> Results:
    """Compute norms with p = 3 of whole numbers, whose sums are exact in any order."""
    x, spec = np.round(4 * cases.normal(shape)), PoolSpec("lp", norm_p=3, **options)
    plan = pooling_engine.plan(spec, shape, "float32")
    output = np.zeros(plan.output_shape, np.float32)
    launch = forward_launch(plan, False, True)
    assert launch.name == f"{kernel}<float, float, POWERS, {32 if plan.taps < 1024 else '256, 4'}>"
    shim.run(launch, x, output)
    return output, forward(x, spec, backend="numpy").output


def norms_of_windows() -> Results:
    return norms({"kernel": (8, 70), "stride": 9}, SHAPE, "norm_by_teams")


def norms_of_planes() -> Results:
    """Compute norms of planes by teams of 256 threads, in two rounds."""
    return norms({"global_window": True}, (2, 2, 70_000), "norm_planes")


@pytest.mark.parametrize(
    ("kernel", "computed", "left_out"),
    [
        ("norm_by_teams", norms_of_windows, None),
        ("norm_by_teams", norms_of_windows, 0),
        ("norm_by_teams", norms_of_windows, 1),
        ("share_largest", norms_of_windows, 0),
        ("norm_planes", norms_of_planes, None),
        ("norm_planes", norms_of_planes, 0),
        ("norm_planes", norms_of_planes, 1),
        ("norm_planes", norms_of_planes, 2),
        ("sum_by_teams", sums, None),
        ("sum_by_teams", sums, 0),
        ("sum_by_teams", sums, 1),
        ("share_by_teams", tie_shares, None),
        ("share_by_teams", tie_shares, 0),
    ],
)
def test_a_missing_barrier_changes_the_result(
    monkeypatch: pytest.MonkeyPatch,
    kernel: str,
    computed: Callable[[], Results],
    left_out: int | None,
) -> None:
    """Leave out one barrier of a kernel, or none."""

    def source_of(file: str) -> str:
        head, name, tail = shim_source(file).partition(f"void {kernel}")
        body, end, rest = tail.partition("\n}\n")
        parts = body.split(BARRIER)
        if left_out is not None:
            parts[left_out : left_out + 2] = ["".join(parts[left_out : left_out + 2])]
        return head + name + BARRIER.join(parts) + end + rest

    shim_source = shim.source_of
    monkeypatch.setattr(shim, "source_of", source_of)
    monkeypatch.setattr(shim, "_kernels", {})
    ours, theirs = computed()
    if left_out is None:
        oracle.assert_same_bits(ours, theirs)
    else:
        assert not np.array_equal(ours, theirs)
