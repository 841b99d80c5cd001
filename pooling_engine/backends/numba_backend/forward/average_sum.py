"""AVERAGE and SUM: added up in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling_engine.backends.numba_backend.forward.reduce_tile import (
    axis_at,
    fold_slab,
    is_left,
    sizes_of,
    slab_at,
)
from pooling_engine.backends.numba_backend.language.elements import (
    averaged,
    loaded,
    scratch_for,
)
from pooling_engine.backends.numba_backend.language.jit import kernel, routine
from pooling_engine.backends.numba_backend.language.operations import SUM
from pooling_engine.backends.numba_backend.language.pointers import (
    ahead,
    get,
    lift,
    pointer_to,
    put,
)
from pooling_engine.backends.numba_backend.tables.axes import COLUMNS, OUTPUTS, SIZE, TABLE


@routine
def divide(
    totals: Any, quotients: Any, factors: Any, low: int, rows: int, axes: Any, sizes: Any,
    inner: int,
) -> None:  # fmt: skip
    """Divides the sums of a slab by the product of the factors of each output.

    Args:
        factors: for each axis those of its outputs, one axis after the other.
        low: the slab's first output along the first axis.
        rows: how many rows of outputs along the last axis the slab has.
    """
    last = axis_at(axes, sizes.axes - 1)
    outputs = get(last, OUTPUTS)
    own = ahead(factors, get(last, TABLE) // 3)
    for row in range(rows):
        number, product = row, 1.0
        for a in range(sizes.axes - 2, -1, -1):
            axis = axis_at(axes, a)
            count = get(axis, OUTPUTS)
            o = number % count if a else number + low
            number //= count
            if not is_left(axis):
                product *= get(factors, get(axis, TABLE) // 3 + o)
        at = row * outputs * inner
        for o in range(outputs):
            divisor = product * get(own, o)
            for i in range(at + o * inner, at + (o + 1) * inner):
                put(quotients, i, lift(get(totals, i), quotients) / divisor)


@kernel
def sums(
    x: Any, output: Any, axes_of_plan: Any, tables_of_plan: Any, factors: Any, inner: int,
    height: int, divisor: float, empty: Any, is_brain: bool, begin: int, end: int,
) -> None:  # fmt: skip
    """Pools slabs `begin` to `end` of flat `x` into flat `output`.

    Args:
        factors: the divisors of an average, factored over the axes; empty if all are `divisor`.
        empty: a zero of the type that elements are loaded in.
    """
    axes, tables = pointer_to(axes_of_plan, 0), pointer_to(tables_of_plan, 0)
    sizes = sizes_of(axes, len(axes_of_plan) // COLUMNS, inner, height)
    most = height * sizes.out_row
    scratch, totals = np.empty(2 * sizes.scratch), np.empty(most)
    wide = scratch_for(empty, sizes.span * sizes.row)
    quotients, narrowed = np.empty(most), np.empty(most, np.float32)
    row = inner * get(axis_at(axes, sizes.axes - 1), OUTPUTS)
    for number in range(begin, end):
        slab = slab_at(number, axes, tables, height)
        taken, given = (slab.end - slab.begin) * sizes.row, (slab.high - slab.low) * sizes.out_row
        taps = pointer_to(x, (slab.plane * get(axes, SIZE) + slab.begin) * sizes.row)
        rows, result = loaded(taps, taken, pointer_to(wide, 0), is_brain), pointer_to(totals, 0)
        fold_slab(
            rows, result, pointer_to(scratch, 0), slab, sizes, axes, tables, SUM, 0.0,
        )  # fmt: skip
        place = pointer_to(output, (slab.plane * get(axes, OUTPUTS) + slab.low) * sizes.out_row)
        spare = pointer_to(narrowed, 0)
        if len(factors):
            divided = pointer_to(quotients, 0)
            divide(
                result, divided, pointer_to(factors, 0), slab.low, given // row, axes, sizes, inner
            )
            averaged(divided, place, 1.0, given, spare, is_brain)
        else:
            averaged(result, place, divisor, given, spare, is_brain)
