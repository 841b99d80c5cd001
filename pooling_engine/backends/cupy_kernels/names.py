"""The names of the kernels: templates with all their arguments, and every one that ships."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from pooling_engine.dtypes import BFLOAT16

VECTOR_BYTES = 16  # what a thread reads and writes at once, where it can
ELEMENTS = {np.dtype(np.float16): "Half", BFLOAT16: "Brain"} | {
    np.dtype(np.float32): "float",
    np.dtype(np.float64): "double",
}
INDICES = {np.dtype(np.uint8): "u8", np.dtype(np.uint16): "u16", np.dtype(np.uint32): "u32"}
NO_INDICES = "None"
ORDERS = ("Larger", "Smaller")
SELECT_TEAMS = (32, 256)  # of threads that look for the extreme of one plane together
SUM_TEAMS = (16, 64, 256)  # of those that add one up

Name = tuple[str, str]  # the file and the kernel


def select_windows(element: str, index: str, order: str, ignores: bool, shape: str) -> Name:
    """MAX and MIN; `shape` is what `shape_of` gives."""
    kind = f"{element}, {index}, {order}, {_word(ignores)}"
    return "forward.cu", f"select_windows<{kind}, {shape}>"


def sum_windows(element: str, shape: str) -> Name:
    """AVERAGE and SUM."""
    return "forward.cu", f"sum_windows<{element}, {shape}>"


def select_planes(element: str, index: str, order: str, ignores: bool, team: int) -> Name:
    """MAX and MIN of whole planes, each read by a team of threads."""
    kind = f"{element}, {index}, {order}, {_word(ignores)}"
    return "whole.cu", f"select_planes<{kind}, {team}>"


def sum_planes(element: str, team: int) -> Name:
    """AVERAGE and SUM of whole planes."""
    return "whole.cu", f"sum_planes<{element}, {team}>"


def select_gradients(element: str, index: str, shape: str) -> Name:
    """The gradient of MAX and MIN."""
    return "backward.cu", f"select_gradients<{element}, {index}, {shape}>"


def sum_gradients(element: str, shape: str) -> Name:
    """The gradient of AVERAGE and SUM."""
    return "backward.cu", f"sum_gradients<{element}, {shape}>"


def check_indices(index: str, shape: str) -> Name:
    """Whether every index names a tap on an element."""
    return "backward.cu", f"check_indices<{index}, {shape}>"


def shape_of(rank: int, shared: bool, is_small: bool, channels: int) -> str:
    """The template arguments that follow from the windows and the layout.

    Args:
        rank: the spatial axes.
        shared: whether windows may share out an axis; such kernels have all three axes.
        is_small: whether 32 bits number all positions; other kernels take whatever is shared.
        channels: those of a thread; 0 for channels first.
    """
    return f"{rank}, {_word(shared)}, {'i32' if is_small else 'i64'}, {channels}"


def all_names() -> Iterator[Name]:
    """Every kernel that a call may ask for, whatever its plan."""
    for element, lanes in _lanes().items():
        shapes = _shapes(lanes)
        indices = (NO_INDICES, *INDICES.values())
        for index, order, ignores in product(indices, ORDERS, (False, True)):
            yield from (select_windows(element, index, order, ignores, s) for s in shapes)
            for team in SELECT_TEAMS:
                yield select_planes(element, index, order, ignores, team)
        for shape in shapes:
            yield sum_windows(element, shape)
            yield sum_gradients(element, shape)
            yield from (select_gradients(element, index, shape) for index in INDICES.values())
        yield from (sum_planes(element, team) for team in SUM_TEAMS)
    for index, shape in product(INDICES.values(), _shapes(1)):
        yield check_indices(index, shape)


def _lanes() -> dict[str, int]:
    return {
        name: VECTOR_BYTES // dtype.itemsize
        for dtype, name in ELEMENTS.items()
        if dtype is not None
    }


def _shapes(lanes: int) -> tuple[str, ...]:
    windows = ((1, False), (2, False), (3, False), (3, True))
    channels = sorted({0, 1, lanes})
    return (
        *(shape_of(*window, True, count) for window in windows for count in channels),
        *(shape_of(3, True, False, count) for count in (0, 1)),
    )


def _word(flag: bool) -> str:
    return "true" if flag else "false"
