"""From a plan to the launch of a kernel: its name, its grid, its arguments. Pure arithmetic.

The name is that of a template with all its arguments: it says what the kernel is made for.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from pooling_engine.backends.cupy_backend.planning import names
from pooling_engine.backends.cupy_backend.planning.choosing import (
    Shape,
    any_shape,
    row_shape,
    square_shape,
    team_of,
)
from pooling_engine.backends.cupy_backend.planning.division import (
    LARGEST,
    MULTIPLY,
    Division,
    division_of,
)
from pooling_engine.backends.cupy_backend.planning.geometry import (
    KERNEL_AXES,
    Share,
    threads_of,
    windows_of,
)
from pooling_engine.backends.cupy_backend.planning.names import (
    ELEMENTS,
    INDICES,
    NO_INDICES,
    ORDERS,
    SELECT_TEAMS,
    SUM_TEAMS,
    VECTOR_BYTES,
    Name,
)
from pooling_engine.dtypes import FLOATS
from pooling_engine.plans.geometry import SlidingAxis
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import Mode, NanPolicy, TiePolicy

THREADS = 256  # of a block; `whole.cu` has the same number
BLOCK = 1024  # elements of a run that is added up in 16 lanes, there too


class Launch(NamedTuple):
    """What to launch.

    Attributes:
        file: the source of the kernel.
        name: the kernel, with its template arguments.
        blocks: of THREADS threads each; none, where there is nothing to compute.
        values: the arguments after the arrays, as the kernel takes them.
    """

    file: str
    name: str
    blocks: int
    values: tuple[Any, ...]


@lru_cache(maxsize=512)
def forward_launch(plan: PoolPlan, has_indices: bool, is_aligned: bool) -> Launch | None:
    """What computes the forward pass of a plan; None if no kernel does.

    Selecting kernels take x, y, the indices or nothing, and where to say that there is a NaN, or
    nothing; those that sum integers x, y, and where to say that a sum overflows, or nothing; the
    others x and y.

    Args:
        is_aligned: whether all arrays begin at a multiple of 16 bytes.
    """
    if not _has_kernels(plan) or (has_indices and plan.index_dtype not in INDICES):
        return None
    if plan.mode is Mode.LP:
        return _norm_launch(plan, is_aligned, is_kept=False)
    if not plan.selects:
        is_float = plan.dtype in FLOATS
        return (_sum_launch if is_float else _integer_sum_launch)(plan, is_aligned)
    index = INDICES[plan.index_dtype] if has_indices else NO_INDICES
    order = ORDERS[plan.mode is Mode.MIN]
    ignores = plan.nan_policy is NanPolicy.IGNORE and plan.dtype in FLOATS
    kind = names.kind_of(ELEMENTS[plan.dtype], index, order, ignores)
    if not _is_whole(plan):
        if (row := row_shape(plan, is_aligned, of_input=False)) is not None:
            if (square := square_shape(plan, row)) is not None:
                name = names.select_square_rows(kind, row.name, square.share.rows)
                return _launch(name, plan, square)
            return _launch(names.select_rows(kind, row.name), plan, row)
        if (team := team_of(plan)) is not None:
            name = names.select_by_teams(kind, team)
            return _launch(name, plan, Shape("", True, Share(of_input=False)), team=team)
        shape = any_shape(plan, is_aligned, of_input=False)
        return _launch(names.select_windows(kind, shape.name), plan, shape)
    team, pack, values = _planes(plan, is_aligned)
    return Launch(*names.select_planes(kind, team, pack), _blocks(plan.outer * team), values)


@lru_cache(maxsize=512)
def backward_launch(plan: PoolPlan, is_aligned: bool) -> Launch | None:
    """What computes the backward pass of a plan; None if no kernel does.

    Selecting kernels take dy, the indices, dx, and where to say that an index is forged; the others
    dy and dx; those of shared ties x, the extremes of the forward pass, what each window sends, and
    dx. They send dy, or what `share_launch` computes. Those of norms take dy, what `kept_launch`
    computes, x and dx.
    """
    if not _has_kernels(plan):
        return None
    if plan.shares_ties:
        return _tie_launch(plan, is_aligned)
    if plan.mode is Mode.LP:
        return _norm_gradient_launch(plan, is_aligned)
    if plan.index_dtype not in INDICES:
        return None
    if plan.selects and _has_empty_windows(plan):  # no thread looks at their indices
        return None
    element, index = ELEMENTS[plan.dtype], INDICES[plan.index_dtype]
    division = None if plan.selects else division_of(plan)
    if (row := row_shape(plan, is_aligned, of_input=True)) is not None:
        if division is None:
            return _launch(names.select_row_gradients(element, index, row.name), plan, row)
        return _launch(names.sum_row_gradients(element, row.name), plan, row, division)
    shape = any_shape(plan, is_aligned, of_input=True)
    if division is None:
        return _launch(names.select_gradients(element, index, shape.name), plan, shape)
    return _launch(names.sum_gradients(element, shape.name), plan, shape, division)


@lru_cache(maxsize=512)
def kept_launch(plan: PoolPlan, is_aligned: bool) -> Launch:
    """What computes the norms that the gradient needs, in float64; it takes x and the norms.

    Where p is infinite they are the numbers of the taps that receive it.
    """
    return _norm_launch(plan, is_aligned, is_kept=True)


@lru_cache(maxsize=512)
def share_launch(plan: PoolPlan, is_aligned: bool) -> Launch:
    """What divides gradients by the number of tied taps.

    It takes x, the extremes of the forward pass, dy, and where the shares belong, in float64.
    """
    element, ignores = ELEMENTS[plan.dtype], plan.nan_policy is NanPolicy.IGNORE
    if (row := row_shape(plan, is_aligned, of_input=False)) is not None:
        return _launch(names.share_rows(element, ignores, row.name), plan, row)
    if (team := team_of(plan)) is not None:
        name = names.share_by_teams(element, ignores, team)
        return _launch(name, plan, Shape("", True, Share(of_input=False)), team=team)
    shape = any_shape(plan, is_aligned, of_input=False)
    return _launch(names.share_windows(element, ignores, shape.name), plan, shape)


def _tie_launch(plan: PoolPlan, is_aligned: bool) -> Launch:
    element, ignores = ELEMENTS[plan.dtype], plan.nan_policy is NanPolicy.IGNORE
    share = names.SHARE if plan.tie_policy is TiePolicy.SPLIT else element
    if (row := row_shape(plan, is_aligned, of_input=True)) is not None:
        return _launch(names.tie_row_gradients(element, share, ignores, row.name), plan, row)
    shape = any_shape(plan, is_aligned, of_input=True)
    return _launch(names.tie_gradients(element, share, ignores, shape.name), plan, shape)


def _has_kernels(plan: PoolPlan) -> bool:
    return len(plan.axes) <= KERNEL_AXES and plan.taps <= LARGEST


def _has_empty_windows(plan: PoolPlan) -> bool:
    """Whether some windows have no tap on an element; only dilation makes such."""
    limits = (axis.tap_limits() for axis in plan.axes if axis.dilation > 1)
    return any((first >= stop).any() for first, stop in limits)


def _is_whole(plan: PoolPlan) -> bool:
    """Whether each plane is one window, whose taps are its elements in their order."""
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
    if not (plan.is_global and plan.inner == 1):
        if (row := row_shape(plan, is_aligned, of_input=False)) is not None:
            return _launch(names.sum_rows(element, row.name), plan, row, division)
        if (team := team_of(plan)) is not None:
            name = names.sum_by_teams(element, team)
            return _launch(name, plan, Shape("", True, Share(of_input=False)), division, team)
        shape = any_shape(plan, is_aligned, of_input=False)
        return _launch(names.sum_windows(element, shape.name), plan, shape, division)
    size = plan.axes[0].size
    pack = _pack(plan, size, is_aligned, fewest=BLOCK + 1)
    team = next((team for team in SUM_TEAMS if size <= team * pack // 16 * BLOCK), SUM_TEAMS[-1])
    values = (division.scale, np.int32(division.rule), np.int64(plan.outer), np.int64(size))
    return Launch(*names.sum_planes(element, team, pack), _blocks(plan.outer * team), values)


def _norm_launch(plan: PoolPlan, is_aligned: bool, is_kept: bool) -> Launch:
    """Norms as the output of a plan, or as they are kept for its gradient."""
    element = ELEMENTS[plan.dtype]
    kind = names.norm_of(element, names.KEPT if is_kept else element, _norm(plan, is_kept))
    if plan.is_global and plan.inner == 1:
        team, pack, values = _planes(plan, is_aligned)
        name = names.norm_planes(kind, team, pack)
        return _of_p(plan, Launch(*name, _blocks(plan.outer * team), values))
    if (team_size := team_of(plan)) is not None:
        shape = Shape("", True, Share(of_input=False))
        return _of_p(
            plan, _launch(names.norm_by_teams(kind, team_size), plan, shape, team=team_size)
        )
    shape = any_shape(plan, is_aligned, of_input=False)
    return _of_p(plan, _launch(names.norm_windows(kind, shape.name), plan, shape))


def _norm_gradient_launch(plan: PoolPlan, is_aligned: bool) -> Launch:
    shape = any_shape(plan, is_aligned, of_input=True)
    name = names.norm_gradients(ELEMENTS[plan.dtype], _norm(plan, is_kept=True), shape.name)
    return _of_p(plan, _launch(name, plan, shape))


def _of_p(plan: PoolPlan, launch: Launch) -> Launch:
    return launch._replace(values=(np.float64(plan.norm_p), *launch.values))


def _norm(plan: PoolPlan, is_kept: bool) -> str:
    if math.isinf(plan.norm_p):
        return "FIRST_LARGEST" if is_kept else "LARGEST"
    return {1.0: "MAGNITUDES", 2.0: "SQUARES"}.get(plan.norm_p, "POWERS")


def _integer_sum_launch(plan: PoolPlan, is_aligned: bool) -> Launch:
    division, kind = division_of(plan), (ELEMENTS[plan.dtype], ELEMENTS[plan.output_dtype])
    if _is_whole(plan):
        threads, pack, sizes = _planes(plan, is_aligned)
        values = (division.scale, np.int32(division.rule), *sizes)
        name = names.sum_integer_planes(*kind, threads, pack)
        return Launch(*name, _blocks(plan.outer * threads), values)
    if (team := team_of(plan)) is not None:
        shape = Shape("", True, Share(of_input=False))
        return _launch(names.sum_integers_by_teams(*kind, team), plan, shape, division, team)
    shape = any_shape(plan, is_aligned, of_input=False)
    return _launch(names.sum_integers(*kind, shape.name), plan, shape, division)


def _planes(plan: PoolPlan, is_aligned: bool) -> tuple[int, int, tuple[np.int64, np.int64]]:
    """The team for a plane, what one of it reads at a time, how many planes of what size."""
    size = math.prod(axis.size for axis in plan.axes)
    team = SELECT_TEAMS[size > BLOCK]
    pack = _pack(plan, size, is_aligned, fewest=team * VECTOR_BYTES // plan.dtype.itemsize)
    return team, pack, (np.int64(plan.outer), np.int64(size))


def _pack(plan: PoolPlan, size: int, is_aligned: bool, fewest: int) -> int:
    """How many elements of a plane of so many a thread reads at a time."""
    vector = VECTOR_BYTES // plan.dtype.itemsize
    return vector if is_aligned and size % vector == 0 and size >= fewest else 1


def _launch(
    name: Name, plan: PoolPlan, shape: Shape, division: Division | None = None, team: int = 1
) -> Launch:
    dtype = np.int32 if shape.is_small else np.int64
    rule = MULTIPLY if division is None else division.rule
    integers = windows_of(plan, dtype, shape.share, rule)
    values = (integers,) if division is None else (division.scale, integers)
    return Launch(*name, _blocks(threads_of(plan, shape.share) * team), values)


def _blocks(threads: int) -> int:
    return -(-threads // THREADS)
