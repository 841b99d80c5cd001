"""Every kernel that ships: what a plan may ask for, by name."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from pooling_engine.backends.cupy_backend.planning.names import (
    ANY_WINDOWS,
    ELEMENTS,
    INDICES,
    KEPT,
    NO_INDICES,
    NORMS,
    ORDERS,
    ROW_INDEX,
    ROW_WINDOWS,
    SELECT_TEAMS,
    SHARE,
    SQUARE_ROWS,
    SUM_TEAMS,
    VECTOR_BYTES,
    WINDOW_TEAMS,
    Name,
    from_positions,
    kind_of,
    neighbours_of,
    norm_by_teams,
    norm_gradients,
    norm_of,
    norm_planes,
    norm_windows,
    row_of,
    select_by_teams,
    select_gradients,
    select_planes,
    select_row_gradients,
    select_rows,
    select_square_rows,
    select_windows,
    shape_of,
    share_by_teams,
    share_rows,
    share_windows,
    sum_by_teams,
    sum_gradients,
    sum_integer_planes,
    sum_integers,
    sum_integers_by_teams,
    sum_planes,
    sum_row_gradients,
    sum_rows,
    sum_windows,
    tie_gradients,
    tie_row_gradients,
    to_positions,
)
from pooling_engine.dtypes import FLOATS, INTEGERS


def all_names() -> Iterator[Name]:
    """Every kernel that a call may ask for, whatever its plan."""
    for dtype in FLOATS:
        element, vector = ELEMENTS[dtype], VECTOR_BYTES // dtype.itemsize
        shapes, packs = _shapes(vector), (1, vector)
        indices = (NO_INDICES, *INDICES.values())
        for selected in product(indices, ORDERS, (False, True)):
            kind = kind_of(element, *selected)
            yield from (select_windows(kind, shape) for shape in shapes)
            yield from (select_by_teams(kind, count) for count in WINDOW_TEAMS)
            yield from (select_planes(kind, *team) for team in product(SELECT_TEAMS, packs))
        for shape in shapes:
            yield sum_windows(element, shape)
            yield sum_gradients(element, shape)
            yield from (select_gradients(element, index, shape) for index in INDICES.values())
        for ignores in (False, True):
            yield from (share_windows(element, ignores, shape) for shape in shapes)
            yield from (share_by_teams(element, ignores, count) for count in WINDOW_TEAMS)
            for share, shape in product(sorted({element, SHARE}), shapes):
                yield tie_gradients(element, share, ignores, shape)
        yield from (sum_by_teams(element, count) for count in WINDOW_TEAMS)
        yield from (sum_planes(element, *team) for team in product(SUM_TEAMS, packs))
        yield from _row_names(dtype)
        yield from _norm_names(dtype)
    for dtype in INTEGERS:
        yield from _integer_names(dtype)
    for index, shape in product(INDICES.values(), _shapes(1)):
        yield to_positions(index, shape)
        yield from_positions(index, shape)


def _row_names(dtype: np.dtype[Any]) -> Iterator[Name]:
    element, index = ELEMENTS[dtype], INDICES[ROW_INDEX]
    for window, count in product(ROW_WINDOWS, neighbours_of(dtype)):
        row = row_of(window, count)
        for selected in product((NO_INDICES, index), ORDERS, (False, True)):
            yield from _select_row_names(kind_of(element, *selected), window, count)
        yield sum_rows(element, row)
        if count % window[1] == 0:  # the strides of the outputs that reach them
            yield select_row_gradients(element, index, row)
            yield sum_row_gradients(element, row)
        for ignores in (False, True):
            yield share_rows(element, ignores, row)
            for share in sorted({element, SHARE}) if count % window[1] == 0 else ():
                yield tie_row_gradients(element, share, ignores, row)


def _select_row_names(kind: str, window: tuple[int, int, int], count: int) -> Iterator[Name]:
    row = row_of(window, count)
    yield select_rows(kind, row)
    if window[1] == 1:
        yield select_square_rows(kind, row, SQUARE_ROWS[window[0]])


def _norm_names(dtype: np.dtype[Any]) -> Iterator[Name]:
    element, vector = ELEMENTS[dtype], VECTOR_BYTES // dtype.itemsize
    shapes = _shapes(vector)
    of_forward, of_backward = (
        {(result, norm) for norm in NORMS if norm != other}
        for result, other in ((element, "FIRST_LARGEST"), (KEPT, "LARGEST"))
    )
    for result, norm in sorted(of_forward | of_backward):
        kind = norm_of(element, result, norm)
        yield from (norm_windows(kind, shape) for shape in shapes)
        yield from (norm_by_teams(kind, count) for count in WINDOW_TEAMS)
        yield from (norm_planes(kind, *team) for team in product(SELECT_TEAMS, (1, vector)))
    for _, norm in sorted(of_backward):
        yield from (norm_gradients(element, norm, shape) for shape in shapes)


def _integer_names(dtype: np.dtype[Any]) -> Iterator[Name]:
    element, vector = ELEMENTS[dtype], VECTOR_BYTES // dtype.itemsize
    shapes, packs = _shapes(vector, (ANY_WINDOWS,)), (1, vector)
    for index, order in product((NO_INDICES, *INDICES.values()), ORDERS):
        kind = kind_of(element, index, order, ignores=False)
        yield from (select_windows(kind, shape) for shape in shapes)
        yield from (select_by_teams(kind, count) for count in WINDOW_TEAMS)
        yield from (select_planes(kind, *team) for team in product(SELECT_TEAMS, packs))
        if index in (NO_INDICES, INDICES[ROW_INDEX]):
            for row in product(ROW_WINDOWS, neighbours_of(dtype)):
                yield from _select_row_names(kind, *row)
    for result in ("i64", "double" if element == "i64" else "float"):
        yield from (sum_integers(element, result, shape) for shape in shapes)
        yield from (sum_integers_by_teams(element, result, count) for count in WINDOW_TEAMS)
        yield from (
            sum_integer_planes(element, result, *team) for team in product(SELECT_TEAMS, packs)
        )


def _shapes(
    lanes: int, windows: tuple[tuple[int, bool], ...] = ((2, False), (3, False), ANY_WINDOWS)
) -> tuple[str, ...]:
    channels = sorted({1, lanes})
    small = (shape_of(*window, True, count) for window in windows for count in channels)
    return (*small, shape_of(3, True, False, 1))
