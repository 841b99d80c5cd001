"""MAX and MIN with indices: beside each extreme goes the number of its tap in the window.

Numbers settle ties, and with them which of two zeros is taken: of equal elements that with the
lower number is chosen, axis by axis. A NaN leaves a doubt, as in `extremes.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling_engine.backends.numba_kernels.elements import (
    has_nan,
    loaded,
    scratch_for,
    stored,
    target_for,
)
from pooling_engine.backends.numba_kernels.geometry import (
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
from pooling_engine.backends.numba_kernels.jit import kernel, part, routine
from pooling_engine.backends.numba_kernels.operations import (
    LARGER,
    SMALLER,
    Operation,
    is_better,
)
from pooling_engine.backends.numba_kernels.pointers import ahead, get, lift, pointer_to, put
from pooling_engine.backends.numba_kernels.slabs import axis_at, is_left, sizes_of, slab_at

NONE = 1 << 30  # the number where no tap is on an element; there are at most 65,535 taps


@routine
def _number_taps(
    source: Any, step: int, count: int, values: Any, numbers: Any, first: int, weight: int,
    length: int, operation: Operation, empty: Any,
) -> None:  # fmt: skip
    """One output of the first axis: `count` vectors of `length` elements, `step` apart."""
    if count <= 0:
        for i in range(length):
            put(values, i, empty)
            put(numbers, i, np.int32(NONE))
        return
    lowest, second = np.int32(first * weight), np.int32((first + 1) * weight)
    if count == 1:
        for i in range(length):
            put(values, i, get(source, i))
            put(numbers, i, lowest)
        return
    b = ahead(source, step)
    for i in range(length):
        is_new = is_better(get(b, i), get(source, i), operation)
        put(numbers, i, second if is_new else lowest)
        put(values, i, get(b, i) if is_new else get(source, i))
    for tap in range(2, count):
        c, number = ahead(source, tap * step), np.int32((first + tap) * weight)
        for i in range(length):
            is_new = is_better(get(c, i), get(values, i), operation)
            put(numbers, i, number if is_new else get(numbers, i))
            put(values, i, get(c, i) if is_new else get(values, i))


@part
def _is_chosen(value: Any, number: Any, held: Any, at: Any, operation: Operation) -> bool:
    """Whether an element is chosen over the one held, whose number is `at`."""
    return is_better(value, held, operation) | ((value == held) & (number < at))


@routine
def _choose_taps(
    source: Any, tags: Any, step: int, count: int, values: Any, numbers: Any, first: int,
    weight: int, length: int, stride: int, operation: Operation, empty: Any,
) -> None:  # fmt: skip
    """Outputs of a later axis: elements `stride` apart, their taps `step` apart."""
    if count <= 0:
        for i in range(length):
            put(values, i, empty)
            put(numbers, i, np.int32(NONE))
        return
    added = np.int32(first * weight)
    for i in range(length):
        put(values, i, get(source, i * stride))
        put(numbers, i, np.int32(get(tags, i * stride) + added))
    for tap in range(1, count):
        a, b, added = (
            ahead(source, tap * step), ahead(tags, tap * step), np.int32((first + tap) * weight)
        )  # fmt: skip
        for i in range(length):
            value, number = get(a, i * stride), np.int32(get(b, i * stride) + added)
            is_new = _is_chosen(value, number, get(values, i), get(numbers, i), operation)
            put(values, i, value if is_new else get(values, i))
            put(numbers, i, number if is_new else get(numbers, i))


@part
def _choose_window(
    source: Any, tags: Any, values: Any, numbers: Any, length: int, stride: int, count: int,
    operation: Operation,
) -> None:  # fmt: skip
    """The same for windows of neighbours on elements; `stride` and `count` are constants."""
    for i in range(length):
        held, at = get(source, i * stride), get(tags, i * stride)
        for tap in range(1, count):
            value = get(source, i * stride + tap)
            number = np.int32(get(tags, i * stride + tap) + np.int32(tap))
            is_new = _is_chosen(value, number, held, at, operation)
            held, at = value if is_new else held, number if is_new else at
        put(values, i, held)
        put(numbers, i, at)


@part
def _choose_run(
    source: Any, tags: Any, axis: Any, values: Any, numbers: Any, length: int, weight: int,
    operation: Operation, empty: Any,
) -> None:  # fmt: skip
    """Single elements whose taps are all on elements, by the loop that fits the window."""
    count, stride, dilation = get(axis, KERNEL), get(axis, STRIDE), get(axis, DILATION)
    is_plain = dilation == 1 and weight == 1
    if is_plain and stride == 2 and count == 2:
        _choose_window(source, tags, values, numbers, length, 2, 2, operation)
    elif is_plain and stride == 2 and count == 3:
        _choose_window(source, tags, values, numbers, length, 2, 3, operation)
    elif is_plain and stride == 1 and count == 3:
        _choose_window(source, tags, values, numbers, length, 1, 3, operation)
    else:
        _choose_taps(
            source, tags, dilation, count, values, numbers, 0, weight, length, stride, operation,
            empty,
        )  # fmt: skip


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
            _choose_run(
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
            _choose_taps(
                ahead(source, at), ahead(tags, at), dilation * inner, stop - first,
                ahead(values, to), ahead(numbers, to), first, weight, inner, 1, operation, empty,
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
        for o in range(slab.low, slab.high):
            start, first, stop = o, 0, 1
            if not is_left(axes):
                start = get(tables, o)
                first, stop = get(tables, outputs + o), get(tables, 2 * outputs + o)
            start -= slab.begin
            to = (o - slab.low) * rest
            _number_taps(
                ahead(rows, (start + first * dilation) * rest), dilation * rest, stop - first,
                ahead(source, to), ahead(numbers, to), first, weight, rest, operation, empty,
            )  # fmt: skip
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
            put(index, i, none if number >= NONE else lift(number, index))
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
