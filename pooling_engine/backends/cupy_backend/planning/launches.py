"""Launches of a plan: kernel name, grid and arguments. Pure arithmetic, needs no GPU."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from pooling_engine.backends.cupy_backend.planning.choosing import (
    Variant,
    general_variant,
    row_variant,
    square_work,
    team_size,
)
from pooling_engine.backends.cupy_backend.planning.division import (
    LARGEST,
    MULTIPLY,
    Division,
    division_of,
)
from pooling_engine.backends.cupy_backend.planning.geometry import (
    KERNEL_AXES,
    ThreadWork,
    packed_windows,
    thread_count,
)
from pooling_engine.backends.cupy_backend.planning.kernels import (
    ELEMENTS,
    INDICES,
    NO_INDICES,
    NORM_RESIDUAL,
    ORDERS,
    SELECT_TEAMS,
    SUM_TEAMS,
    TIE_SHARE,
    VECTOR_BYTES,
    Arguments,
    Name,
    kernel_name,
)
from pooling_engine.backends.rules import BLOCK, LANES
from pooling_engine.dtypes import FLOATS
from pooling_engine.plans.geometry import SlidingAxis
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import Mode, NanPolicy, TiePolicy

BLOCK_THREADS = 256  # THREADS in `whole.cu`
_TEAM = Variant({}, True, ThreadWork(of_input=False))


class Launch(NamedTuple):
    """Launch of a kernel.

    Attributes:
        file: source file.
        name: kernel with its template arguments.
        blocks: number of blocks of `BLOCK_THREADS` threads; 0 if there is nothing to compute.
        values: arguments that follow the arrays.
    """

    file: str
    name: str
    blocks: int
    values: tuple[Any, ...]


@lru_cache(maxsize=512)
def forward_launch(plan: PoolPlan, has_indices: bool, is_aligned: bool) -> Launch | None:
    """Return the launch of the forward pass, or None if the plan has no kernel.

    Its arrays are, by mode:

    - MAX and MIN: x, y, the indices or null, a flag for a NaN or null;
    - AVERAGE and SUM of integers: x, y, a flag for an overflow or null;
    - all others: x, y.

    Args:
        has_indices: whether the call returns indices.
        is_aligned: whether all arrays begin at a multiple of 16 bytes.
    """
    if not _has_kernels(plan) or (has_indices and plan.index_dtype not in INDICES):
        return None
    if plan.mode is Mode.LP:
        return _norm_launch(plan, is_aligned, is_residual=False)
    if not plan.selects:
        is_float = plan.dtype in FLOATS
        if is_float and any(map(plan.scans, plan.axes)):
            return None  # the kernels add tap by tap, which gives other sums than a scan
        return (_sum_launch if is_float else _integer_sum_launch)(plan, is_aligned)
    kind: Arguments = {
        "E": ELEMENTS[plan.dtype],
        "I": INDICES[plan.index_dtype] if has_indices else NO_INDICES,
        "Order": ORDERS[plan.mode is Mode.MIN],
        "IGNORES": plan.nan_policy is NanPolicy.IGNORE and plan.dtype in FLOATS,
    }
    if _is_whole(plan):
        team, pack, values = _whole_planes(plan, is_aligned)
        name = kernel_name("select_planes", **kind, TEAM=team, V=pack)
        return Launch(*name, _blocks(plan.outer * team), values)
    if (row := row_variant(plan, is_aligned, of_input=False)) is not None:
        if (work := square_work(plan, row)) is not None:
            name = kernel_name("select_square_rows", **kind, **row.arguments, ROWS=work.rows)
            return _launch(name, plan, row._replace(work=work))
        return _launch(kernel_name("select_rows", **kind, **row.arguments), plan, row)
    if (threads := team_size(plan)) is not None:
        name = kernel_name("select_by_teams", **kind, TEAM=threads)
        return _launch(name, plan, _TEAM, team=threads)
    variant = general_variant(plan, is_aligned, of_input=False)
    return _launch(kernel_name("select_windows", **kind, **variant.arguments), plan, variant)


@lru_cache(maxsize=512)
def backward_launch(plan: PoolPlan, is_aligned: bool) -> Launch | None:
    """Return the launch that computes the input gradient, or None if the plan has no kernel.

    Its arrays are, by mode:

    - MAX and MIN by indices: dy, the indices, dx, a flag for an invalid index;
    - MAX and MIN with shared ties: x, the extremes of the forward pass, dy or the result of
      `tie_share_launch`, dx;
    - AVERAGE and SUM: dy, dx;
    - LP: dy, the result of `residual_norm_launch`, x, dx.
    """
    if not _has_kernels(plan):
        return None
    if plan.shares_ties:
        return _tie_launch(plan, is_aligned)
    if plan.mode is Mode.LP:
        return _norm_gradient_launch(plan, is_aligned)
    if plan.index_dtype not in INDICES:
        return None
    if plan.selects and _has_empty_windows(plan):  # no thread would check their indices
        return None
    kind = {"E": ELEMENTS[plan.dtype]}
    if plan.selects:
        kind["I"] = INDICES[plan.index_dtype]
    prefix, division = ("select", None) if plan.selects else ("sum", division_of(plan))
    if (row := row_variant(plan, is_aligned, of_input=True)) is not None:
        name = kernel_name(f"{prefix}_row_gradients", **kind, **row.arguments)
        return _launch(name, plan, row, division)
    variant = general_variant(plan, is_aligned, of_input=True)
    name = kernel_name(f"{prefix}_gradients", **kind, **variant.arguments)
    return _launch(name, plan, variant, division)


@lru_cache(maxsize=512)
def residual_norm_launch(plan: PoolPlan, is_aligned: bool) -> Launch:
    """Return the launch that computes the float64 norms which the gradient needs.

    Its arrays are x and the norms. For an infinite p the results are the numbers of the window
    elements that receive the gradient.
    """
    return _norm_launch(plan, is_aligned, is_residual=True)


@lru_cache(maxsize=512)
def tie_share_launch(plan: PoolPlan, is_aligned: bool) -> Launch:
    """Return the launch that divides gradients by the number of tied window elements.

    Its arrays are x, the extremes of the forward pass, dy and the float64 results.
    """
    kind: Arguments = {
        "E": ELEMENTS[plan.dtype],
        "IGNORES": plan.nan_policy is NanPolicy.IGNORE,
    }
    if (row := row_variant(plan, is_aligned, of_input=False)) is not None:
        return _launch(kernel_name("share_rows", **kind, **row.arguments), plan, row)
    if (threads := team_size(plan)) is not None:
        name = kernel_name("share_by_teams", **kind, TEAM=threads)
        return _launch(name, plan, _TEAM, team=threads)
    variant = general_variant(plan, is_aligned, of_input=False)
    return _launch(kernel_name("share_windows", **kind, **variant.arguments), plan, variant)


def _tie_launch(plan: PoolPlan, is_aligned: bool) -> Launch:
    element = ELEMENTS[plan.dtype]
    kind: Arguments = {
        "E": element,
        "S": TIE_SHARE if plan.tie_policy is TiePolicy.SPLIT else element,
        "IGNORES": plan.nan_policy is NanPolicy.IGNORE,
    }
    if (row := row_variant(plan, is_aligned, of_input=True)) is not None:
        return _launch(kernel_name("tie_row_gradients", **kind, **row.arguments), plan, row)
    variant = general_variant(plan, is_aligned, of_input=True)
    return _launch(kernel_name("tie_gradients", **kind, **variant.arguments), plan, variant)


def _has_kernels(plan: PoolPlan) -> bool:
    return len(plan.axes) <= KERNEL_AXES and plan.taps <= LARGEST


def _has_empty_windows(plan: PoolPlan) -> bool:
    """Return whether some windows contain no element, which only dilation can cause."""
    limits = (axis.tap_limits() for axis in plan.axes if axis.dilation > 1)
    return any((first >= stop).any() for first, stop in limits)


def _is_whole(plan: PoolPlan) -> bool:
    """Return whether each plane is one window whose taps are its elements in order."""
    return plan.inner == 1 and all(
        isinstance(axis, SlidingAxis)
        and axis.outputs == 1
        and axis.window.kernel == axis.size
        and (axis.window.dilation == 1 or axis.size == 1)
        and axis.window.padding_before == 0
        for axis in plan.axes
    )


def _sum_launch(plan: PoolPlan, is_aligned: bool) -> Launch:
    division, element = division_of(plan), ELEMENTS[plan.dtype]
    if plan.is_global and plan.inner == 1:
        size = plan.axes[0].size
        pack = pack_size(plan, size, is_aligned, fewest=BLOCK + 1)
        team = next((t for t in SUM_TEAMS if size <= t * pack // LANES * BLOCK), SUM_TEAMS[-1])
        values = (division.scale, np.int32(division.rule), np.int64(plan.outer), np.int64(size))
        name = kernel_name("sum_planes", E=element, TEAM=team, V=pack)
        return Launch(*name, _blocks(plan.outer * team), values)
    if (row := row_variant(plan, is_aligned, of_input=False)) is not None:
        return _launch(kernel_name("sum_rows", E=element, **row.arguments), plan, row, division)
    if (threads := team_size(plan)) is not None:
        name = kernel_name("sum_by_teams", E=element, TEAM=threads)
        return _launch(name, plan, _TEAM, division, threads)
    variant = general_variant(plan, is_aligned, of_input=False)
    name = kernel_name("sum_windows", E=element, **variant.arguments)
    return _launch(name, plan, variant, division)


def _integer_sum_launch(plan: PoolPlan, is_aligned: bool) -> Launch:
    division = division_of(plan)
    kind = {"E": ELEMENTS[plan.dtype], "R": ELEMENTS[plan.output_dtype]}
    if _is_whole(plan):
        threads, pack, sizes = _whole_planes(plan, is_aligned)
        values = (division.scale, np.int32(division.rule), *sizes)
        name = kernel_name("sum_integer_planes", **kind, TEAM=threads, V=pack)
        return Launch(*name, _blocks(plan.outer * threads), values)
    if (team := team_size(plan)) is not None:
        name = kernel_name("sum_integers_by_teams", **kind, TEAM=team)
        return _launch(name, plan, _TEAM, division, team)
    variant = general_variant(plan, is_aligned, of_input=False)
    name = kernel_name("sum_integers", **kind, **variant.arguments)
    return _launch(name, plan, variant, division)


def _norm_launch(plan: PoolPlan, is_aligned: bool, is_residual: bool) -> Launch:
    """Return the launch of norms, as the output of a plan or as the residual of its gradient."""
    element = ELEMENTS[plan.dtype]
    kind = {
        "E": element,
        "Y": NORM_RESIDUAL if is_residual else element,
        "NORM": _norm(plan, is_residual),
    }
    if plan.is_global and plan.inner == 1:
        team, pack, values = _whole_planes(plan, is_aligned)
        name = kernel_name("norm_planes", **kind, TEAM=team, V=pack)
        return _with_p(plan, Launch(*name, _blocks(plan.outer * team), values))
    if (threads := team_size(plan)) is not None:
        name = kernel_name("norm_by_teams", **kind, TEAM=threads)
        return _with_p(plan, _launch(name, plan, _TEAM, team=threads))
    variant = general_variant(plan, is_aligned, of_input=False)
    name = kernel_name("norm_windows", **kind, **variant.arguments)
    return _with_p(plan, _launch(name, plan, variant))


def _norm_gradient_launch(plan: PoolPlan, is_aligned: bool) -> Launch:
    variant = general_variant(plan, is_aligned, of_input=True)
    kind = {"E": ELEMENTS[plan.dtype], "NORM": _norm(plan, is_residual=True)}
    name = kernel_name("norm_gradients", **kind, **variant.arguments)
    return _with_p(plan, _launch(name, plan, variant))


def _with_p(plan: PoolPlan, launch: Launch) -> Launch:
    return launch._replace(values=(np.float64(plan.norm_p), *launch.values))


def _norm(plan: PoolPlan, is_residual: bool) -> str:
    if math.isinf(plan.norm_p):
        return "FIRST_LARGEST" if is_residual else "LARGEST"
    return {1.0: "MAGNITUDES", 2.0: "SQUARES"}.get(plan.norm_p, "POWERS")


def _whole_planes(plan: PoolPlan, is_aligned: bool) -> tuple[int, int, tuple[np.int64, np.int64]]:
    """Return the team per plane, the elements per read, and the count and size of the planes."""
    size = math.prod(axis.size for axis in plan.axes)
    team = SELECT_TEAMS[size > BLOCK]
    pack = pack_size(plan, size, is_aligned, fewest=team * VECTOR_BYTES // plan.dtype.itemsize)
    return team, pack, (np.int64(plan.outer), np.int64(size))


def pack_size(plan: PoolPlan, size: int, is_aligned: bool, fewest: int) -> int:
    """Return how many elements of a plane a thread reads at once.

    Args:
        size: elements per plane.
        fewest: size from which reading several at once pays.
    """
    vector = VECTOR_BYTES // plan.dtype.itemsize
    return vector if is_aligned and size % vector == 0 and size >= fewest else 1


def _launch(
    name: Name, plan: PoolPlan, variant: Variant, division: Division | None = None, team: int = 1
) -> Launch:
    dtype = np.int32 if variant.is_small else np.int64
    rule = MULTIPLY if division is None else division.rule
    windows = packed_windows(plan, dtype, variant.work, rule)
    values = (windows,) if division is None else (division.scale, windows)
    return Launch(*name, _blocks(thread_count(plan, variant.work) * team), values)


def _blocks(threads: int) -> int:
    return -(-threads // BLOCK_THREADS)
