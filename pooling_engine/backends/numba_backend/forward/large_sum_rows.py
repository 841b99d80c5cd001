"""Sums of float64 along rows of windows tap by tap, and averages of float32 from sums."""

from __future__ import annotations

from pooling_engine.backends.numba_backend.language.jit import part, routine
from pooling_engine.backends.numba_backend.language.pointers import Pointer, ahead, get
from pooling_engine.backends.numba_backend.language.vectors import (
    filled,
    has_nan_lane,
    load_8,
    product_of,
    quotient_by_inverse,
    quotient_of,
    rounded,
    store_vector,
    sum_of,
    with_canonical_nans,
)

LANES = 8


@routine
def add_rows(source: Pointer, length: int, target: Pointer, taps: int) -> None:
    """Sum windows of neighbours from each of `length` elements on, all rows as one."""
    if taps == 5:
        _add(source, length, target, 5)
    else:
        _add(source, length, target, taps)


@part
def _add(source: Pointer, length: int, target: Pointer, taps: int) -> None:
    for at in range(0, length, LANES):
        total = load_8(source, at)
        for tap in range(1, taps):
            total = sum_of(total, load_8(source, at + tap))
        store_vector(target, at, total)


@routine
def average_rows(
    source: Pointer, length: int, target: Pointer, taps: int, divisor: float, inverse: float
) -> bool:
    """Average windows like `add_rows`, by one divisor with an exact inverse, to float32.

    Returns:
        Whether an average may be an infinity or a NaN; then they are not correct.
    """
    if taps == 5:
        return _average(source, length, target, 5, divisor, inverse)
    return _average(source, length, target, taps, divisor, inverse)


@part
def _average(
    source: Pointer, length: int, target: Pointer, taps: int, divisor: float, inverse: float
) -> bool:
    like = load_8(source, 0)
    divisors, inverses = filled(divisor, like), filled(inverse, like)
    found = rounded(filled(0.0, like))  # becomes a NaN with the first average that is
    for at in range(0, length, LANES):
        total = load_8(source, at)
        for tap in range(1, taps):
            total = sum_of(total, load_8(source, at + tap))
        average = rounded(quotient_by_inverse(total, divisors, inverses))
        found = sum_of(found, average)
        store_vector(target, at, average)
    return has_nan_lane(found)


@routine
def copy_rows(
    source: Pointer, pitch: int, target: Pointer, target_pitch: int, rows: int, length: int
) -> None:
    """Copy rows of at least LANES elements."""
    for number in range(-(-length // LANES)):
        at = min(number * LANES, length - LANES)
        elements, places = ahead(source, at), ahead(target, at)
        for row in range(rows):
            store_vector(places, row * target_pitch, load_8(elements, row * pitch))


@routine
def divide(
    sums: Pointer,
    pitch: int,
    target: Pointer,
    target_pitch: int,
    rows: int,
    length: int,
    row_factors: Pointer,
    factors: Pointer,
    divisor: float,
    inverse: float,
) -> None:
    """Divide rows of sums, and round each quotient once, to float32.

    Args:
        sums: the rows.
        pitch: distance between them.
        target: rows of averages.
        target_pitch: distance between them.
        rows: number of rows.
        length: sums of a row, at least LANES.
        row_factors: a factor of the divisors for each row.
        factors: the other factor, for each element of a row.
        divisor: divisor of all sums, or 0 if the factors apply.
        inverse: its inverse if `quotient_by_inverse` is exact, else 0.
    """
    like = load_8(sums, 0)
    for number in range(-(-length // LANES)):
        at = min(number * LANES, length - LANES)
        totals, results = ahead(sums, at), ahead(target, at)
        if divisor == 0:
            by = load_8(factors, at)
            for row in range(rows):
                divisors = product_of(by, filled(get(row_factors, row), like))
                average = rounded(quotient_of(load_8(totals, row * pitch), divisors))
                store_vector(results, row * target_pitch, with_canonical_nans(average))
            continue
        divisors, inverses = filled(divisor, like), filled(inverse, like)
        found = rounded(filled(0.0, like))  # becomes a NaN with the first average that is
        for row in range(rows):
            average = rounded(quotient_by_inverse(load_8(totals, row * pitch), divisors, inverses))
            found = sum_of(found, average)
            store_vector(results, row * target_pitch, average)
        if inverse == 0 or has_nan_lane(found):  # or an infinity, or large averages of both signs
            for row in range(rows):
                average = rounded(quotient_of(load_8(totals, row * pitch), divisors))
                store_vector(results, row * target_pitch, with_canonical_nans(average))
