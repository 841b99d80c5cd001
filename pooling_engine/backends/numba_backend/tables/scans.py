"""Windows of a plan that are summed by scans, as the kernels take them."""

from __future__ import annotations

import numpy as np

from pooling_engine.backends.numba_backend.language.arguments import ScanTables
from pooling_engine.backends.numba_backend.tables.axes import planes_and_axes, window_tables
from pooling_engine.backends.rules import LANES
from pooling_engine.plans.plan import PoolPlan

MOST_ROWS = 2 * LANES  # that are transposed together
COLUMN_BYTES = 32 << 10  # of the transposed rows, if LANES rows do not have more


def scan_tables(plan: PoolPlan) -> ScanTables:
    """Return the tables of `scan_sum_pool` for a plan."""
    windows, (_, axes) = window_tables(plan), planes_and_axes(plan)
    group = MOST_ROWS if MOST_ROWS * axes[-1].size * 8 <= COLUMN_BYTES else LANES
    most, suffixes, sizes, row = 2 * LANES, 0, [(0, 0)], plan.inner
    for axis in reversed(axes):
        if row == 1:  # its rows may be transposed
            sizes.append((axis.size, axis.outputs))
        length = group if row == 1 else row
        suffixes = max(suffixes, min(axis.kernel, axis.size) * max(length, LANES))
        most = max(most, length)
        row *= axis.size
    columns, outputs = (group * max(numbers) for numbers in zip(*sizes, strict=True))
    return ScanTables(
        axes=windows.axes,
        tap_ranges=windows.tap_ranges,
        is_scanned=np.array([plan.scans(axis) for axis in axes], np.uint8),
        inner=windows.inner,
        height=windows.height,
        group=group,
        suffixes=suffixes,
        columns=columns,
        sums=outputs,
        vectors=most + columns + outputs,
        tiles=windows.tiles,
        element=windows.element,
    )
