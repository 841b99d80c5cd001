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
    combine_in_any_order,
    is_better,
    pick,
)
from pooling_engine.backends.numba_kernels.pointers import ahead, get, lift, pointer_to, put
from pooling_engine.backends.numba_kernels.slabs import LONG, axis_at, is_left, sizes_of, slab_at

NONE = 1 << 30  # the number where no tap is on an element; there are at most 65,535 taps


@part
def _put_none(values: Any, numbers: Any, length: int, empty: Any) -> None:
    for i in range(length):
        put(values, i, empty)
        put(numbers, i, np.int32(NONE))


@part
def _number(source: Any, step: int, values: Any, numbers: Any, first: int, weight: int,
    length: int, count: int, is_begun: bool, operation: Operation,
) -> None:  # fmt: skip
    """`count` vectors, `step` apart, of the first axis; `count` and `is_begun` are constants.

    Args:
        first: the number of the first tap along the axis.
        weight: of the axis in the number of a tap.
        is_begun: whether values and numbers hold the extremes of earlier taps.
    """
    for i in range(length):
        held, at = get(source, i), np.int32(first * weight)
        if is_begun:
            is_new = is_better(held, get(values, i), operation)
            held = pick(is_new, held, get(values, i))
            at = pick(is_new, at, get(numbers, i))
        for tap in range(1, count):
            value = get(source, i + tap * step)
            is_new = is_better(value, held, operation)
            held = pick(is_new, value, held)
            at = pick(is_new, np.int32((first + tap) * weight), at)
        put(values, i, held)
        put(numbers, i, at)


@routine
def _number_taps(
    source: Any, step: int, count: int, values: Any, numbers: Any, first: int, weight: int,
    length: int, operation: Operation, empty: Any,
) -> None:  # fmt: skip
    """One output of the first axis: `count` vectors of `length` elements, `step` apart."""
    if count <= 0:
        _put_none(values, numbers, length, empty)
        return
    if count == 1:
        _number(source, step, values, numbers, first, weight, length, 1, False, operation)
    elif count == 2:
        _number(source, step, values, numbers, first, weight, length, 2, False, operation)
    else:
        _number(source, step, values, numbers, first, weight, length, 3, False, operation)
    for tap in range(3, count):
        taps = ahead(source, tap * step)
        _number(taps, step, values, numbers, first + tap, weight, length, 1, True, operation)


@part
def _is_chosen(value: Any, number: Any, held: Any, at: Any, operation: Operation) -> Any:
    """Whether an element is chosen over the one held, whose number is `at`."""
    return is_better(value, held, operation) | ((value == held) & (number < at))


@part
def _choose_window(
    source: Any, tags: Any, step: int, values: Any, numbers: Any, first: int, weight: int,
    length: int, stride: int, count: int, is_begun: bool, operation: Operation,
) -> None:  # fmt: skip
    """Outputs of a later axis: elements `stride` apart, their `count` taps `step` apart.

    The stride, the count and `is_begun` are constants; the others are as in `_number`.
    """
    for i in range(length):
        held = get(source, i * stride)
        at = np.int32(get(tags, i * stride) + np.int32(first * weight))
        if is_begun:
            before, number = get(values, i), get(numbers, i)
            is_new = _is_chosen(held, at, before, number, operation)
            held, at = pick(is_new, held, before), pick(is_new, at, number)
        for tap in range(1, count):
            value = get(source, i * stride + tap * step)
            number = get(tags, i * stride + tap * step)
            number = np.int32(number + np.int32((first + tap) * weight))
            is_new = _is_chosen(value, number, held, at, operation)
            held, at = pick(is_new, value, held), pick(is_new, number, at)
        put(values, i, held)
        put(numbers, i, at)


@routine
def _choose_taps(
    source: Any, tags: Any, step: int, count: int, values: Any, numbers: Any, first: int,
    weight: int, length: int, operation: Operation, empty: Any,
) -> None:  # fmt: skip
    """Outputs of a later axis side by side: `count` vectors of `length` elements, `step` apart."""
    if count <= 0:
        _put_none(values, numbers, length, empty)
        return
    if count == 1:
        _choose_window(
            source, tags, step, values, numbers, first, weight, length, 1, 1, False, operation
        )
    elif count == 2:
        _choose_window(
            source, tags, step, values, numbers, first, weight, length, 1, 2, False, operation
        )
    else:
        _choose_window(
            source, tags, step, values, numbers, first, weight, length, 1, 3, False, operation
        )
    for tap in range(3, count):
        _choose_window(
            ahead(source, tap * step), ahead(tags, tap * step), step, values, numbers, first + tap,
            weight, length, 1, 1, True, operation,
        )  # fmt: skip


@part
def _choose_few(
    source: Any, tags: Any, step: int, count: int, values: Any, numbers: Any, first: int,
    weight: int, operation: Operation,
) -> None:  # fmt: skip
    """One output of a few taps."""
    held, at = get(source, 0), np.int32(get(tags, 0) + np.int32(first * weight))
    for tap in range(1, count):
        value = get(source, tap * step)
        number = np.int32(get(tags, tap * step) + np.int32((first + tap) * weight))
        is_new = _is_chosen(value, number, held, at, operation)
        held, at = pick(is_new, value, held), pick(is_new, number, at)
    put(values, 0, held)
    put(numbers, 0, at)


@routine
def _choose_many(
    source: Any, tags: Any, step: int, count: int, value: Any, number: Any, first: int,
    weight: int, operation: Operation,
) -> None:  # fmt: skip
    """One output of many taps, `step` apart: its extreme, then the lowest number that has it."""
    best = get(source, 0)
    if step == 1:
        for tap in range(1, count):
            best = combine_in_any_order(get(source, tap), best, operation)
    else:
        for tap in range(1, count):
            best = combine_in_any_order(get(source, tap * step), best, operation)
    lowest = np.int32(NONE)
    for tap in range(count):
        tag = np.int32(get(tags, tap * step) + np.int32((first + tap) * weight))
        lowest = min(lowest, pick(get(source, tap * step) == best, tag, np.int32(NONE)))
    put(number, 0, lowest)
    for tap in range(count):  # zeros of both signs are equal: the one that has the number
        if get(tags, tap * step) + (first + tap) * weight == lowest:
            put(value, 0, get(source, tap * step))
            return


@part
def _choose_run(
    source: Any, tags: Any, axis: Any, values: Any, numbers: Any, length: int, weight: int,
    operation: Operation, empty: Any,
) -> None:  # fmt: skip
    """Single elements whose taps are all on elements, by the loop that fits the window."""
    count, stride, step = get(axis, KERNEL), get(axis, STRIDE), get(axis, DILATION)
    if stride == 2 and count == 2:
        _choose_window(
            source, tags, step, values, numbers, 0, weight, length, 2, 2, False, operation
        )
    elif stride == 2 and count == 3:
        _choose_window(
            source, tags, step, values, numbers, 0, weight, length, 2, 3, False, operation
        )
    elif stride == 4 and count == 4:
        _choose_window(
            source, tags, step, values, numbers, 0, weight, length, 4, 4, False, operation
        )
    elif stride == 1 and count < LONG:
        _choose_taps(
            source, tags, step, count, values, numbers, 0, weight, length, operation, empty
        )
    else:
        for i in range(length):
            _choose_one(
                ahead(source, i * stride), ahead(tags, i * stride), step, count, ahead(values, i),
                ahead(numbers, i), 0, weight, operation,
            )  # fmt: skip


@part
def _choose_one(
    source: Any, tags: Any, step: int, count: int, values: Any, numbers: Any, first: int,
    weight: int, operation: Operation,
) -> None:  # fmt: skip
    """One output of any number of taps."""
    if count < LONG:
        _choose_few(source, tags, step, count, values, numbers, first, weight, operation)
    else:
        _choose_many(source, tags, step, count, values, numbers, first, weight, operation)


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
            if inner == 1 and first < stop:
                _choose_one(
                    ahead(source, at), ahead(tags, at), dilation, stop - first, ahead(values, to),
                    ahead(numbers, to), first, weight, operation,
                )  # fmt: skip
            else:
                _choose_taps(
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
            _number_taps(
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
