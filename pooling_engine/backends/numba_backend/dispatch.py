"""The choice of a kernel for a plan, and the arguments that all its calls have in common."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from pooling_engine.backends.numba_backend.backward.average_sum import spread_gradients
from pooling_engine.backends.numba_backend.backward.max_min_gather import gather_gradients
from pooling_engine.backends.numba_backend.backward.max_min_scatter import scatter_gradients
from pooling_engine.backends.numba_backend.backward.non_overlapping import (
    MOST_SELECTED_TAPS,
    fill_selected,
    fill_shares,
)
from pooling_engine.backends.numba_backend.backward.small_planes import collect_planes
from pooling_engine.backends.numba_backend.forward.average_rows import (
    AVERAGED_WINDOWS,
    average_pool,
)
from pooling_engine.backends.numba_backend.forward.average_sum import sum_pool
from pooling_engine.backends.numba_backend.forward.global_integer_sum import (
    global_integer_average_pool,
    global_integer_sum_pool,
)
from pooling_engine.backends.numba_backend.forward.global_sum import (
    global_sum_channels,
    global_sum_pool,
)
from pooling_engine.backends.numba_backend.forward.large_max_min import (
    large_max_pool,
    large_min_pool,
)
from pooling_engine.backends.numba_backend.forward.large_sum import large_sum_pool
from pooling_engine.backends.numba_backend.forward.max_min import (
    max_number_pool,
    max_pool,
    min_number_pool,
    min_pool,
)
from pooling_engine.backends.numba_backend.forward.max_min_indices import (
    max_number_pool_indices,
    max_pool_indices,
    min_number_pool_indices,
    min_pool_indices,
)
from pooling_engine.backends.numba_backend.forward.scan_sum import scan_sum_pool
from pooling_engine.backends.numba_backend.forward.short_rows_average_sum import (
    short_rows_sum_pool,
)
from pooling_engine.backends.numba_backend.forward.short_rows_max_min import (
    short_rows_max_pool,
    short_rows_min_pool,
)
from pooling_engine.backends.numba_backend.language.arguments import (
    AdjacentTables,
    CollectTables,
    FlatTables,
    GatherTables,
    LargeSums,
    LargeTables,
    PlaneTables,
    RowTables,
    ScanTables,
    ScatterTables,
    SpreadTables,
    WindowTables,
)
from pooling_engine.backends.numba_backend.language.processor import compresses_in_registers
from pooling_engine.backends.numba_backend.tables.adjacent_windows import adjacent_tables
from pooling_engine.backends.numba_backend.tables.axes import (
    index_tables,
    is_unchanged,
    window_tables,
)
from pooling_engine.backends.numba_backend.tables.divisors import (
    divisors_of,
    is_power_of_two,
    plane_tables,
)
from pooling_engine.backends.numba_backend.tables.elements import FLOATS_16
from pooling_engine.backends.numba_backend.tables.flat_planes import flat_tables
from pooling_engine.backends.numba_backend.tables.index_targets import (
    has_short_offsets,
    scatter_tables,
)
from pooling_engine.backends.numba_backend.tables.large_windows import (
    has_large_windows,
    large_divisors,
    large_sums,
    large_tables,
)
from pooling_engine.backends.numba_backend.tables.reaching_outputs import (
    count_legal,
    gather_tables,
    spread_tables,
)
from pooling_engine.backends.numba_backend.tables.regular_windows import sliding_plan
from pooling_engine.backends.numba_backend.tables.scans import scan_tables
from pooling_engine.backends.numba_backend.tables.short_rows import (
    MOST_SELECTED,
    MOST_SELECTED_BY_LANE,
    has_short_rows,
    row_divisors,
    row_tables,
)
from pooling_engine.backends.numba_backend.tables.small_planes import (
    collect_tables,
    has_small_planes,
)
from pooling_engine.backends.rules import may_overflow
from pooling_engine.dtypes import FLOATS
from pooling_engine.plans.geometry import SlidingAxis
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import Mode, NanPolicy

_most_selected = MOST_SELECTED if compresses_in_registers() else MOST_SELECTED_BY_LANE

Tables = (
    WindowTables
    | PlaneTables
    | RowTables
    | FlatTables
    | ScanTables
    | LargeSums
    | LargeTables
    | SpreadTables
    | CollectTables
    | ScatterTables
    | GatherTables
    | AdjacentTables
)

MAX_NUMBERED_TAPS = (1 << 30) - 1  # with indices; the number after them means "none"
MAX_LEGAL = 1 << 20  # entries of the table of legal indices
MAX_REACHING = 1 << 22  # entries of the lists of outputs that reach a position
LEAST_FILLED_ROW = 12  # outputs; shorter rows of adjacent windows are scattered faster
# Gradients of extremes are gathered for at least as many channels and at most as many taps, if
# channels are last; otherwise scattering is faster (docs/adr/0004).
GATHERED_CHANNELS = 48
GATHERED_TAPS = 25


# A kernel, and the element types of its tensors.
Key = tuple[Any, tuple[str, ...]]


class Launch(NamedTuple):
    """A kernel and all that its calls for one plan have in common.

    Attributes:
        key: the kernel, and the element types of the tensors that it is compiled for.
        inputs: number of tensors that are read; the others are written.
        records: arguments after the tensors, before the range of tiles.
        tiles: number of tiles.
        size_bytes: size of the larger tensor.
        converted: type that the input is converted to before, or None.
    """

    key: Key
    inputs: int
    records: tuple[Any, ...]
    tiles: int
    size_bytes: int
    converted: np.dtype[Any] | None = None


NO_KERNEL = Launch((None, ()), 0, (), 0, 0)  # the NumPy backend computes the plan


def forward_launch(plan: PoolPlan) -> Launch:
    """Return the launch of the forward pass of a plan without indices, or `NO_KERNEL`.

    The kernel takes the input and the output.
    """
    if plan.outer == 0 or plan.mode is Mode.LP:
        return NO_KERNEL
    if plan.dtype not in FLOATS:
        return _integer_launch(plan)
    plan = sliding_plan(plan)
    if has_short_rows(plan, _most_selected):
        return _short_rows_launch(plan)
    if has_large_windows(plan):
        return _large_windows_launch(plan)
    if plan.selects:
        return _forward(_selection_kernel(plan), plan, window_tables(plan))
    if plan.is_global:
        sums: Any = global_sum_pool if plan.inner == 1 else global_sum_channels
        return _forward(sums, plan, plane_tables(plan))
    if any(map(plan.scans, plan.axes)):
        return _forward(scan_sum_pool, plan, scan_tables(plan), divisors_of(plan))
    sums = average_pool if _is_fused(plan) else sum_pool
    return _forward(sums, plan, window_tables(plan), divisors_of(plan))


def index_launch(plan: PoolPlan) -> Launch:
    """Return the launch of the forward pass of MAX or MIN with indices, or `NO_KERNEL`.

    The kernel takes the input, the output and the indices.
    """
    if plan.outer == 0 or plan.dtype not in FLOATS or plan.taps > MAX_NUMBERED_TAPS:
        return NO_KERNEL
    types = plan.dtype, plan.dtype, plan.index_dtype
    no_index = ~plan.index_dtype.type(0)  # the largest index
    records = index_tables(plan), no_index
    return _launch(_index_kernel(plan), types, 1, records, plan.input_bytes)


def _large_windows_launch(plan: PoolPlan) -> Launch:
    if not plan.selects:
        return _forward(large_sum_pool, plan, large_sums(plan), large_divisors(plan))
    kernel = large_max_pool if plan.mode is Mode.MAX else large_min_pool
    return _forward(kernel, plan, large_tables(plan))


def _short_rows_launch(plan: PoolPlan) -> Launch:
    if not plan.selects:
        return _forward(short_rows_sum_pool, plan, row_tables(plan), row_divisors(plan))
    kernel = short_rows_max_pool if plan.mode is Mode.MAX else short_rows_min_pool
    return _forward(kernel, plan, flat_tables(plan))


def _integer_launch(plan: PoolPlan) -> Launch:
    """Return the launch for global sums of integers and averages of bytes; else `NO_KERNEL`."""
    if plan.selects or may_overflow(plan):
        return NO_KERNEL
    if plan.is_global and plan.inner == 1:
        is_sum = plan.mode is Mode.SUM
        kernel = global_integer_sum_pool if is_sum else global_integer_average_pool
        return _forward(kernel, plan, plane_tables(plan))
    if plan.mode is Mode.SUM or plan.is_global or plan.dtype.itemsize > 1:
        return NO_KERNEL
    # float64 holds every sum of bytes in memory.
    if any(map(plan.scans, plan.axes)):
        records = scan_tables(plan), divisors_of(plan)
        float32 = np.dtype(np.float32)  # the scans have vectors of floats
        launch = _launch(scan_sum_pool, (float32, plan.output_dtype), 1, records, plan.input_bytes)
        return launch._replace(converted=float32)
    return _forward(sum_pool, plan, window_tables(plan), divisors_of(plan))


def _is_fused(plan: PoolPlan) -> bool:
    """Return whether `average_pool` computes a plan of AVERAGE."""
    if plan.dtype != np.float32 or len(plan.axes) != 2 or plan.inner > 1:
        return False
    first, last = plan.axes
    if not isinstance(last, SlidingAxis) or is_unchanged(first):
        return False
    window = last.window
    is_known = (window.kernel, window.stride) in AVERAGED_WINDOWS and window.dilation == 1
    return is_known and last.size >= window.kernel and not is_power_of_two(divisors_of(plan))


def _selection_kernel(plan: PoolPlan) -> Any:
    is_max = plan.mode is Mode.MAX
    if plan.nan_policy is NanPolicy.IGNORE:
        return max_number_pool if is_max else min_number_pool
    return max_pool if is_max else min_pool


def _index_kernel(plan: PoolPlan) -> Any:
    is_max = plan.mode is Mode.MAX
    if plan.nan_policy is NanPolicy.IGNORE:
        return max_number_pool_indices if is_max else min_number_pool_indices
    return max_pool_indices if is_max else min_pool_indices


def backward_launch(plan: PoolPlan) -> Launch:
    """Return the launch of the backward pass of a plan, or `NO_KERNEL`.

    The kernel takes the output gradient, for MAX and MIN the indices, and the input gradient.
    """
    if plan.outer == 0 or plan.mode is Mode.LP or plan.shares_ties:
        return NO_KERNEL
    if not plan.selects:
        return _sharing_launch(plan)
    kernel: Any
    tables: Tables
    adjacent = adjacent_tables(plan)
    if adjacent and adjacent.row_taps <= MOST_SELECTED_TAPS and adjacent.row >= LEAST_FILLED_ROW:
        kernel, tables = fill_selected, adjacent
    elif not has_short_offsets(plan):
        return NO_KERNEL
    elif _is_gathered(plan):
        kernel, tables = gather_gradients, gather_tables(plan)
    else:
        kernel, tables = scatter_gradients, scatter_tables(plan)
    types = plan.dtype, plan.index_dtype, plan.dtype
    return _launch(kernel, types, 2, (tables,), plan.input_bytes)


def _sharing_launch(plan: PoolPlan) -> Launch:
    kernel: Any
    records: tuple[Any, ...]
    plan = sliding_plan(plan)
    adjacent = adjacent_tables(plan)
    if adjacent:
        kernel, records = fill_shares, (adjacent, divisors_of(plan))
    elif has_small_planes(plan):
        kernel, records = collect_planes, (collect_tables(plan),)
    elif sum(axis.outputs * axis.kernel for axis in plan.axes) <= MAX_REACHING:
        kernel, records = spread_gradients, (spread_tables(plan), divisors_of(plan))
    else:
        return NO_KERNEL
    return _launch(kernel, (plan.dtype, plan.dtype), 1, records, plan.input_bytes)


def _forward(kernel: Any, plan: PoolPlan, *records: Any) -> Launch:
    return _launch(kernel, (plan.dtype, plan.output_dtype), 1, records, plan.input_bytes)


def _launch(
    kernel: Any,
    types: tuple[np.dtype[Any], ...],
    inputs: int,
    records: tuple[Any, ...],
    size_bytes: int,
) -> Launch:
    names = tuple("uint16" if dtype in FLOATS_16 else dtype.name for dtype in types)
    return Launch((kernel, names), inputs, records, records[0].tiles, size_bytes)


def _is_gathered(plan: PoolPlan) -> bool:
    """Return whether gathering the gradients of extremes is faster than scattering them."""
    if plan.inner < GATHERED_CHANNELS or plan.taps > GATHERED_TAPS:
        return False
    is_short = math.prod(axis.outputs * axis.kernel for axis in plan.axes) <= MAX_REACHING
    is_short = is_short and count_legal(plan) <= MAX_LEGAL
    return is_short and scatter_tables(plan).overlaps
