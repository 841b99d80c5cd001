"""MAX and MIN without indices.

The comparisons here leave open what NaNs do, and which of two zeros is taken. So every element is
looked at once for NaNs, and where an output is zero for negative zeros; a kernel that finds one
says so, and the caller asks the NumPy backend instead.
"""

from __future__ import annotations

from typing import Any

from pooling_engine.backends.numba_backend.forward.reduce_tile import (
    fold_slab,
    sizes_of,
    slab_at,
)
from pooling_engine.backends.numba_backend.forward.special_values import (
    has_nan,
    has_negative_zero,
    has_zero,
)
from pooling_engine.backends.numba_backend.language.elements import (
    loaded,
    scratch_for,
    stored,
    target_for,
)
from pooling_engine.backends.numba_backend.language.jit import kernel, section
from pooling_engine.backends.numba_backend.language.operations import LARGER, SMALLER, Operation
from pooling_engine.backends.numba_backend.language.pointers import get, pointer_to
from pooling_engine.backends.numba_backend.tables.axes import COLUMNS, OUTPUTS, SIZE


@section
def _extremes(
    x: Any, output: Any, axes_of_plan: Any, tables_of_plan: Any, inner: int, height: int,
    empty: Any, is_brain: bool, begin: int, end: int, operation: Operation,
) -> bool:  # fmt: skip
    axes, tables = pointer_to(axes_of_plan, 0), pointer_to(tables_of_plan, 0)
    sizes = sizes_of(axes, len(axes_of_plan) // COLUMNS, inner, height)
    scratch = scratch_for(empty, 2 * sizes.scratch)
    wide = scratch_for(empty, sizes.span * sizes.row)
    result = scratch_for(empty, height * sizes.out_row)
    for number in range(begin, end):
        slab = slab_at(number, axes, tables, height)
        taken = (slab.end - slab.begin) * sizes.row
        taps = pointer_to(x, (slab.plane * get(axes, SIZE) + slab.begin) * sizes.row)
        rows = loaded(taps, taken, pointer_to(wide, 0), is_brain)
        if has_nan(rows, taken):
            return True
        place = pointer_to(output, (slab.plane * get(axes, OUTPUTS) + slab.low) * sizes.out_row)
        target = target_for(place, pointer_to(result, 0))
        fold_slab(
            rows, target, pointer_to(scratch, 0), slab, sizes, axes, tables, operation, empty,
        )  # fmt: skip
        given = (slab.high - slab.low) * sizes.out_row
        if has_zero(target, given) and has_negative_zero(rows, taken):
            return True
        stored(target, place, given, is_brain)
    return False


@kernel
def maxima(
    x: Any, output: Any, axes: Any, tables: Any, inner: int, height: int, empty: Any,
    is_brain: bool, begin: int, end: int,
) -> bool:  # fmt: skip
    """Pools slabs `begin` to `end` of flat `x` into flat `output`.

    Returns:
        Whether there is a doubt that only the order of the taps can settle; then the output
        is not whole.
    """
    return _extremes(x, output, axes, tables, inner, height, empty, is_brain, begin, end, LARGER)


@kernel
def minima(
    x: Any, output: Any, axes: Any, tables: Any, inner: int, height: int, empty: Any,
    is_brain: bool, begin: int, end: int,
) -> bool:  # fmt: skip
    """The same for the smallest elements."""
    return _extremes(x, output, axes, tables, inner, height, empty, is_brain, begin, end, SMALLER)
