"""Gradients where windows are tiles: side by side, none over another or an edge.

Each element is in one window at most, so nothing is added up. With indices it has the gradient of
its window if the index names it, or zero: a choice, which vectors make, where `scatter` writes one
element after the other. Without, it has the share of each tap. A slab is a run of outputs along
the first axis of one plane.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling_engine.backends.numba_backend.language.elements import (
    averaged,
    canonical,
    divide_by,
    loaded,
    scratch_for,
)
from pooling_engine.backends.numba_backend.language.jit import kernel, part, routine
from pooling_engine.backends.numba_backend.language.operations import pick
from pooling_engine.backends.numba_backend.language.pointers import (
    ahead,
    get,
    lift,
    pointer_to,
    put,
)
from pooling_engine.backends.numba_backend.language.streaming import copy, finish, place_for, send

WIDEST = 4  # taps along the last axis, where they are chosen
LONG = 32  # outputs; shorter rows are computed as one, and put where they belong afterwards


@part
def _choose(gradient: Any, index: Any, first: int, target: Any, count: int, kernel: int) -> None:
    """Of each of `count` windows the `kernel` taps from number `first`; `kernel` is a constant."""
    zero = lift(0, target)
    for i in range(count):
        for tap in range(kernel):
            is_chosen = get(index, i) == lift(first + tap, index)
            put(target, i * kernel + tap, pick(is_chosen, get(gradient, i), zero))


@routine
def _choose_taps(
    gradient: Any, index: Any, first: int, target: Any, count: int, kernel: int
) -> None:
    """The same, for any `kernel` up to `WIDEST`."""
    if kernel == 1:
        _choose(gradient, index, first, target, count, 1)
    elif kernel == 2:
        _choose(gradient, index, first, target, count, 2)
    elif kernel == 3:
        _choose(gradient, index, first, target, count, 3)
    else:
        _choose(gradient, index, first, target, count, 4)


@routine
def _is_forged(indices: Any, count: int, taps: int) -> bool:
    """Whether any index is neither the number of a tap nor "none"."""
    limit, none, is_forged = lift(taps, indices), lift(-1, indices), False
    for i in range(count):
        is_forged |= (get(indices, i) >= limit) & (get(indices, i) != none)
    return is_forged


@part
def _repeat(gradient: Any, target: Any, count: int, kernel: int) -> None:
    for i in range(count):
        for tap in range(kernel):
            put(target, i * kernel + tap, get(gradient, i))


@routine
def _repeat_taps(gradient: Any, target: Any, count: int, kernel: int) -> None:
    """Each of `count` gradients `kernel` times."""
    if kernel == 1:
        _repeat(gradient, target, count, 1)
    elif kernel == 2:
        _repeat(gradient, target, count, 2)
    elif kernel == 3:
        _repeat(gradient, target, count, 3)
    elif kernel == 4:
        _repeat(gradient, target, count, 4)
    else:
        _repeat(gradient, target, count, kernel)


@routine
def _fill_rows(
    gradient: Any, index: Any, image: Any, spare: Any, cells: Any, offsets: Any, rows: int,
    each: int, step: int, row: int, kernel: int,
) -> None:  # fmt: skip
    """The taps of `rows` rows of `each` rows of windows; arguments as in `tiles`."""
    width = row * kernel
    for tap in range(len(offsets)):
        if row < LONG:
            _choose_taps(gradient, index, tap * kernel, spare, rows * each * row, kernel)
        for number in range(rows * each):
            place = ahead(image, number // each * step + offsets[tap] + cells[number % each])
            at = number * row
            if row < LONG:
                copy(ahead(spare, at * kernel), place, width)
            else:
                _choose_taps(
                    ahead(gradient, at), ahead(index, at), tap * kernel, place, row, kernel
                )


@kernel
def tiles(
    dy: Any, indices: Any, dx: Any, cells: Any, offsets: Any, outputs: int, row: int, kernel: int,
    step: int, size: int, height: int, is_streamed: bool, is_brain: bool, begin: int, end: int,
) -> bool:  # fmt: skip
    """Computes slabs `begin` to `end` of flat `dx`.

    Args:
        cells: of each row of windows at one output of the first axis, where its first element is.
        offsets: of each row of taps of a window, how far it is from the first.
        outputs: the outputs along the first axis.
        row: those of a row.
        kernel: the taps along a row.
        step: the elements from one output of the first axis to the next.
        size: the elements of a plane.
        height: the outputs along the first axis that one slab has.
        is_streamed: whether `dx` is written past the cache.

    Returns:
        Whether an index is forged; then the gradient is not whole.
    """
    bands, taps = -(-outputs // height), len(offsets) * kernel
    most, rest = height * len(cells) * row, size - outputs * step
    has_gaps = outputs * len(cells) * row * taps != size
    gradients, spares = np.empty(most, dx.dtype), np.empty(most * kernel, dx.dtype)
    images = np.empty(height * step + rest if is_streamed else 0, dx.dtype)
    is_forged = False
    for slab in range(begin, end):
        plane, low = slab // bands, slab % bands * height
        high = min(outputs, low + height)
        at, count = (plane * outputs + low) * len(cells) * row, (high - low) * len(cells) * row
        gradient, index = pointer_to(gradients, 0), pointer_to(indices, at)
        canonical(pointer_to(dy, at), gradient, count, is_brain)
        is_forged |= _is_forged(index, count, taps)
        target, given = pointer_to(dx, plane * size + low * step), (high - low) * step
        if high == outputs:
            given += rest
        image = place_for(target, pointer_to(images, 0), is_streamed)
        if has_gaps:
            for i in range(given):
                put(image, i, lift(0, image))
        _fill_rows(
            gradient, index, image, pointer_to(spares, 0), cells, offsets, high - low, len(cells),
            step, row, kernel,
        )  # fmt: skip
        send(image, target, given, is_streamed)
    finish()
    return is_forged


@kernel
def shares(
    dy: Any, dx: Any, cells: Any, offsets: Any, outputs: int, row: int, kernel: int, step: int,
    size: int, height: int, is_streamed: bool, divisor: float, empty: Any, is_brain: bool,
    begin: int, end: int,
) -> None:  # fmt: skip
    """Computes slabs `begin` to `end` of flat `dx`; what is not said here is as in `tiles`.

    Args:
        divisor: what the sum of each window was divided by.
        empty: a zero of the type that elements are loaded in.
    """
    bands, each = -(-outputs // height), len(cells)
    most, rest = height * each * row, size - outputs * step
    has_gaps = outputs * each * row * len(offsets) * kernel != size
    wide, quotients, narrowed = scratch_for(empty, most), np.empty(most), np.empty(most, np.float32)
    gradients, spares = np.empty(most, dx.dtype), np.empty(most * kernel, dx.dtype)
    images = np.empty(height * step + rest if is_streamed else 0, dx.dtype)
    for slab in range(begin, end):
        plane, low = slab // bands, slab % bands * height
        high = min(outputs, low + height)
        count, given = (high - low) * each * row, (high - low) * step
        if high == outputs:
            given += rest
        sent = loaded(
            pointer_to(dy, (plane * outputs + low) * each * row),
            count,
            pointer_to(wide, 0),
            is_brain,
        )
        quotient, gradient = pointer_to(quotients, 0), pointer_to(gradients, 0)
        divide_by(sent, quotient, divisor, count)
        averaged(quotient, gradient, 1.0, count, pointer_to(narrowed, 0), is_brain)
        target = pointer_to(dx, plane * size + low * step)
        image = place_for(target, pointer_to(images, 0), is_streamed)
        if has_gaps:
            for i in range(given):
                put(image, i, lift(0, image))
        spare, width = pointer_to(spares, 0), row * kernel
        _repeat_taps(gradient, spare, count, kernel)
        for number in range((high - low) * each):
            place = ahead(image, number // each * step + cells[number % each])
            for tap in range(len(offsets)):
                copy(ahead(spare, number * width), ahead(place, offsets[tap]), width)
        send(image, target, given, is_streamed)
    finish()
