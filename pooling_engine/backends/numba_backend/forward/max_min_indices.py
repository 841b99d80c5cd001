"""MAX and MIN with indices: beside each extreme goes the number of its tap in the window.

Numbers settle ties, and with them which of two zeros is taken: of equal elements that with the
lower number is chosen, axis by axis. A NaN leaves a doubt, as in `extremes.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling_engine.backends.numba_backend.forward.reduce_tile import (
    axis_at,
    is_left,
    sizes_of,
    slab_at,
)
from pooling_engine.backends.numba_backend.forward.select_axis import (
    NONE,
    choose_one,
    choose_run,
    choose_taps,
    number_taps,
)
from pooling_engine.backends.numba_backend.forward.special_values import has_nan
from pooling_engine.backends.numba_backend.language.elements import (
    loaded,
    scratch_for,
    stored,
    target_for,
)
from pooling_engine.backends.numba_backend.language.jit import kernel, routine
from pooling_engine.backends.numba_backend.language.operations import (
    LARGER,
    SMALLER,
    Operation,
    pick,
)
from pooling_engine.backends.numba_backend.language.pointers import (
    ahead,
    get,
    lift,
    pointer_to,
    put,
)
from pooling_engine.backends.numba_backend.tables.axes import (
    COLUMNS,
    DILATION,
    HIGH,
    KERNEL,
    LOW,
    OUTPUTS,
    SIZE,
    STRIDE,
    TABLE,
)


@routine
def _choose_axis(
    source: Any, tags: Any, pitch: int, axis: Any, table: Any, values: Any, numbers: Any,
    outer: int, inner: int, weight: int, operation: Operation, empty: Any,
) -> None:  # fmt: skip
    """`outer` blocks of (size, inner), `pitch` apart, to as many of (outputs, inner)."""
    size, outputs, stride = get(axis, SIZE), get(axis, OUTPUTS), get(axis, STRIDE)
    low, high, dilation = get(axis, LOW), get(axis, HIGH), get(axis, DILATION)
    if inner > 1:
        high = low
    elif low < high:
        is_one_row = outputs * stride == size == pitch
        length = (outer - 1) * outputs + high - low if is_one_row else high - low
        for block in range(1 if is_one_row else outer):
            at, to = block * pitch + get(table, low), block * outputs + low
            choose_run(
                ahead(source, at), ahead(tags, at), axis, ahead(values, to), ahead(numbers, to),
                length, weight, operation, empty,
            )  # fmt: skip
    for block in range(outer):
        for o in range(outputs):
            if low <= o < high:
                continue
            start, first, stop = get(table, o), get(table, outputs + o), get(table, 2 * outputs + o)
            at = block * pitch + (start + first * dilation) * inner
            to = (block * outputs + o) * inner
            if inner == 1 and first < stop:
                choose_one(
                    ahead(source, at), ahead(tags, at), dilation, stop - first, ahead(values, to),
                    ahead(numbers, to), first, weight, operation,
                )  # fmt: skip
            else:
                choose_taps(
                    ahead(source, at), ahead(tags, at), dilation * inner, stop - first,
                    ahead(values, to), ahead(numbers, to), first, weight, inner, operation, empty,
                )  # fmt: skip


@routine
def _choose(
    x: Any, output: Any, indices: Any, axes_of_plan: Any, tables_of_plan: Any, inner: int,
    height: int, empty: Any, none: Any, is_brain: bool, begin: int, end: int,
    operation: Operation,
) -> bool:  # fmt: skip
    axes, tables = pointer_to(axes_of_plan, 0), pointer_to(tables_of_plan, 0)
    sizes = sizes_of(axes, len(axes_of_plan) // COLUMNS, inner, height)
    outputs, dilation = get(axes, OUTPUTS), get(axes, DILATION)
    wide = scratch_for(empty, sizes.span * sizes.row)
    scratch = scratch_for(empty, 2 * sizes.scratch)
    tags = np.empty(2 * sizes.scratch, np.int32)
    result = scratch_for(empty, height * sizes.out_row)
    taps = 1
    for a in range(sizes.axes):
        taps *= get(axis_at(axes, a), KERNEL)
    for slab_number in range(begin, end):
        slab = slab_at(slab_number, axes, tables, height)
        taken, given = (slab.end - slab.begin) * sizes.row, (slab.high - slab.low) * sizes.out_row
        place = pointer_to(x, (slab.plane * get(axes, SIZE) + slab.begin) * sizes.row)
        rows = loaded(place, taken, pointer_to(wide, 0), is_brain)
        if has_nan(rows, taken):
            return True
        where = (slab.plane * outputs + slab.low) * sizes.out_row
        target = target_for(pointer_to(output, where), pointer_to(result, 0))
        source, numbers = pointer_to(scratch, 0), pointer_to(tags, 0)
        weight, rest, outer = taps // get(axes, KERNEL), sizes.row, slab.high - slab.low
        o = slab.low
        while o < slab.high:
            start, first, stop, run = o, 0, 1, slab.high - o
            if not is_left(axes):
                start, run = get(tables, o), 1
                first, stop = get(tables, outputs + o), get(tables, 2 * outputs + o)
                if get(axes, STRIDE) == 1 and get(axes, LOW) <= o < get(axes, HIGH):
                    run = min(slab.high, get(axes, HIGH)) - o  # side by side, as one
            source_rows = ahead(rows, (start - slab.begin + first * dilation) * rest)
            to = (o - slab.low) * rest
            number_taps(
                source_rows, dilation * rest, stop - first, ahead(source, to),
                ahead(numbers, to), first, weight, run * rest, operation, empty,
            )  # fmt: skip
            o += run
        for a in range(1, sizes.axes):
            axis, pitch = axis_at(axes, a), rest
            weight //= get(axis, KERNEL)
            rest //= get(axis, SIZE)
            half = (a % 2) * sizes.scratch
            values = target if a == sizes.axes - 1 else pointer_to(scratch, half)
            chosen = pointer_to(tags, half)
            _choose_axis(
                source, numbers, pitch, axis, ahead(tables, get(axis, TABLE)), values, chosen,
                outer, rest, weight, operation, empty,
            )  # fmt: skip
            source, numbers = values, chosen
            outer *= get(axis, OUTPUTS)
        stored(target, pointer_to(output, where), given, is_brain)
        index = pointer_to(indices, where)
        for i in range(given):
            number = get(numbers, i)
            put(index, i, pick(number >= NONE, none, lift(number, index)))
    return False


@kernel
def argmaxima(
    x: Any, output: Any, indices: Any, axes: Any, tables: Any, inner: int, height: int, empty: Any,
    none: Any, is_brain: bool, begin: int, end: int,
) -> bool:  # fmt: skip
    """Pools slabs `begin` to `end` of flat `x` into flat `output` and window `indices`.

    Returns:
        Whether there is a NaN; then the results are not whole.
    """
    return _choose(
        x, output, indices, axes, tables, inner, height, empty, none, is_brain, begin, end, LARGER
    )


@kernel
def argminima(
    x: Any, output: Any, indices: Any, axes: Any, tables: Any, inner: int, height: int, empty: Any,
    none: Any, is_brain: bool, begin: int, end: int,
) -> bool:  # fmt: skip
    """The same for the smallest elements."""
    return _choose(
        x, output, indices, axes, tables, inner, height, empty, none, is_brain, begin, end, SMALLER
    )
