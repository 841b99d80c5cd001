"""The choice of a kernel for a plan, and the arguments of its call."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

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

Array = NDArray[Any]
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


class KernelCall(NamedTuple):
    """A kernel and its arguments.

    Attributes:
        kernel: compiled function of the arguments and a range of tiles; returns whether the NumPy
            backend must compute the call instead.
        arguments: all arguments but the range: the tensors as rows, then the kernel's records.
        types: element types of the tensors that the kernel is compiled for.
        tiles: number of tiles.
        size_bytes: size of the larger tensor.
    """

    kernel: Any
    arguments: tuple[Any, ...]
    types: tuple[np.dtype[Any], ...]
    tiles: int
    size_bytes: int


def forward_call(
    plan: PoolPlan, x: Array, output: Array, indices: Array | None
) -> KernelCall | None:
    """Return the kernel call for the forward pass of a plan, or None if it has no kernel."""
    if plan.outer == 0 or plan.mode is Mode.LP:
        return None
    if plan.dtype not in FLOATS:
        return _integer_call(plan, x, output)
    if indices is not None and plan.taps > MAX_NUMBERED_TAPS:
        return None
    sums: Any
    rows: tuple[Array, ...] = (read(x), written(output))
    if indices is not None:
        rows = *rows, written(indices)
        no_index = ~indices.dtype.type(0)  # the largest index
        return _call(_index_kernel(plan), rows, index_tables(plan), x.nbytes, no_index)
    plan = sliding_plan(plan)
    if has_short_rows(plan, _most_selected):
        return _short_rows_call(plan, rows, x.nbytes)
    if has_large_windows(plan):
        return _large_windows_call(plan, rows, x.nbytes)
    if plan.selects:
        return _call(_selection_kernel(plan), rows, window_tables(plan), x.nbytes)
    if plan.is_global:
        sums = global_sum_pool if plan.inner == 1 else global_sum_channels
        return _call(sums, rows, plane_tables(plan), x.nbytes)
    if any(map(plan.scans, plan.axes)):
        return _call(scan_sum_pool, rows, scan_tables(plan), x.nbytes, divisors_of(plan))
    sums = average_pool if _is_fused(plan) else sum_pool
    return _call(sums, rows, window_tables(plan), x.nbytes, divisors_of(plan))


def _large_windows_call(plan: PoolPlan, rows: tuple[Array, ...], size_bytes: int) -> KernelCall:
    if not plan.selects:
        return _call(large_sum_pool, rows, large_sums(plan), size_bytes, large_divisors(plan))
    kernel = large_max_pool if plan.mode is Mode.MAX else large_min_pool
    return _call(kernel, rows, large_tables(plan), size_bytes)


def _short_rows_call(plan: PoolPlan, rows: tuple[Array, ...], size_bytes: int) -> KernelCall:
    if not plan.selects:
        divided = row_divisors(plan)
        return _call(short_rows_sum_pool, rows, row_tables(plan), size_bytes, divided)
    kernel = short_rows_max_pool if plan.mode is Mode.MAX else short_rows_min_pool
    return _call(kernel, rows, flat_tables(plan), size_bytes)


def _integer_call(plan: PoolPlan, x: Array, output: Array) -> KernelCall | None:
    """Return the kernel call for global sums of integers and averages of bytes; else None."""
    rows: tuple[Array, ...] = (read(x), written(output))
    if plan.selects or may_overflow(plan):
        return None
    if plan.is_global and plan.inner == 1:
        is_sum = plan.mode is Mode.SUM
        kernel = global_integer_sum_pool if is_sum else global_integer_average_pool
        return _call(kernel, rows, plane_tables(plan), x.nbytes)
    if plan.mode is Mode.SUM or plan.is_global or plan.dtype.itemsize > 1:
        return None
    # float64 holds every sum of bytes in memory.
    if any(map(plan.scans, plan.axes)):  # the scans have vectors of floats
        rows = read(x.astype(np.float32)), written(output)
        return _call(scan_sum_pool, rows, scan_tables(plan), x.nbytes, divisors_of(plan))
    return _call(sum_pool, rows, window_tables(plan), x.nbytes, divisors_of(plan))


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


def backward_call(plan: PoolPlan, dy: Array, indices: Array | None, dx: Array) -> KernelCall | None:
    """Return the kernel call for the backward pass of a plan, or None if it has no kernel."""
    if plan.outer == 0 or plan.mode is Mode.LP or plan.shares_ties:
        return None
    if indices is None:
        return _share(plan, dy, dx)
    kernel: Any
    tables: Tables
    adjacent = adjacent_tables(plan)
    if adjacent and adjacent.row_taps <= MOST_SELECTED_TAPS and adjacent.row >= LEAST_FILLED_ROW:
        kernel, tables = fill_selected, adjacent
    elif not has_short_offsets(plan):
        return None
    elif _is_gathered(plan):
        kernel, tables = gather_gradients, gather_tables(plan)
    else:
        kernel, tables = scatter_gradients, scatter_tables(plan)
    return _call(kernel, (read(dy), read(indices), written(dx)), tables, dx.nbytes)


def written(array: Array) -> Array:
    """Return the elements as a flat array of a type that kernels know."""
    row = array.reshape(-1)
    return row.view(np.uint16) if array.dtype in FLOATS_16 else row


def read(array: Array) -> Array:
    """Return the elements like `written`, read-only.

    Callers' arrays may be read-only or not, and kernels are compiled for one of the two.
    """
    row = written(array).view()
    row.flags.writeable = False
    return row


def _share(plan: PoolPlan, dy: Array, dx: Array) -> KernelCall | None:
    kernel: Any
    tables: Tables
    plan = sliding_plan(plan)
    adjacent = adjacent_tables(plan)
    if adjacent:
        kernel, tables = fill_shares, adjacent
    elif has_small_planes(plan):
        tables = collect_tables(plan)
        return _call(collect_planes, (read(dy), written(dx)), tables, dx.nbytes)
    elif sum(axis.outputs * axis.kernel for axis in plan.axes) <= MAX_REACHING:
        kernel, tables = spread_gradients, spread_tables(plan)
    else:
        return None
    return _call(kernel, (read(dy), written(dx)), tables, dx.nbytes, divisors_of(plan))


def _call(
    kernel: Any, rows: tuple[Array, ...], tables: Tables, size_bytes: int, *more: Any
) -> KernelCall:
    types = tuple([row.dtype for row in rows])
    return KernelCall(kernel, (*rows, tables, *more), types, tables.tiles, size_bytes)


def _is_gathered(plan: PoolPlan) -> bool:
    """Return whether gathering the gradients of extremes is faster than scattering them."""
    if plan.inner < GATHERED_CHANNELS or plan.taps > GATHERED_TAPS:
        return False
    is_short = math.prod(axis.outputs * axis.kernel for axis in plan.axes) <= MAX_REACHING
    is_short = is_short and count_legal(plan) <= MAX_LEGAL
    return is_short and scatter_tables(plan).overlaps
