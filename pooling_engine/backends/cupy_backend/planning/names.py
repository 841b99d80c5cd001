"""The names of the kernels: templates with all their arguments. `shipped.py` lists them."""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling_engine.dtypes import FLOATS, INTEGERS

VECTOR_BYTES = 16  # what a thread reads and writes at once, where it can
_WORDS = {"float16": "Half", "bfloat16": "Brain", "float32": "float", "float64": "double"}
_WORDS |= {"int8": "i8", "uint8": "u8", "int16": "i16", "int32": "i32", "int64": "i64"}
ELEMENTS = {dtype: _WORDS[dtype.name] for dtype in FLOATS + INTEGERS}
INDICES = {np.dtype(np.uint8): "u8", np.dtype(np.uint16): "u16", np.dtype(np.uint32): "u32"}
NO_INDICES = "None"
SHARE = "double"  # the type of shares of a gradient
ORDERS = ("Larger", "Smaller")
NORMS = ("MAGNITUDES", "SQUARES", "LARGEST", "FIRST_LARGEST", "POWERS")  # as `norms.cu` says
OWN_BITS = ("norms.cu", "norm_teams.cu")  # files whose kernels may give other bits than NumPy
KEPT = "double"  # the type of norms that a gradient needs
# Kernels, strides and paddings before the first element that rows are read for, along their axis.
ROW_WINDOWS = ((2, 2, 0), (3, 1, 1), (3, 2, 0), (3, 2, 1), (5, 1, 2), (7, 1, 3))
SQUARE_ROWS = {3: 3, 5: 4, 7: 4}  # of a thread, by the kernel of square windows 1 apart
ROW_INDEX = np.dtype(np.uint8)  # the type of their indices
ANY_WINDOWS = (3, True)  # the spatial axes, and whether windows may share them out
WINDOW_TEAMS = (8, 32)  # of threads that read one window together
SELECT_TEAMS = (32, 256)  # of threads that look for the extreme of one plane together
SUM_TEAMS = (16, 64, 256)  # of those that add one up

Name = tuple[str, str]  # the file and the kernel


def kind_of(element: str, index: str, order: str, ignores: bool) -> str:
    """What MAX and MIN select, and how: the template arguments that all their kernels begin with.

    Args:
        element: one of `ELEMENTS`.
        index: one of `INDICES`, or `NO_INDICES`.
        order: one of `ORDERS`.
        ignores: whether NaN is never selected.
    """
    return f"{element}, {index}, {order}, {_word(ignores)}"


def select_windows(kind: str, shape: str) -> Name:
    """MAX and MIN; `shape` is what `shape_of` gives."""
    return "forward.cu", f"select_windows<{kind}, {shape}>"


def sum_windows(element: str, shape: str) -> Name:
    """AVERAGE and SUM."""
    return "forward.cu", f"sum_windows<{element}, {shape}>"


def select_rows(kind: str, row: str) -> Name:
    """MAX and MIN of neighbours together; `row` is what `row_of` gives."""
    return "rows.cu", f"select_rows<{kind}, {row}>"


def select_square_rows(kind: str, row: str, rows: int) -> Name:
    """MAX and MIN of neighbours in a few rows together, where windows are square."""
    return "square_rows.cu", f"select_square_rows<{kind}, {row}, {rows}>"


def sum_rows(element: str, row: str) -> Name:
    """AVERAGE and SUM of neighbours together."""
    return "rows.cu", f"sum_rows<{element}, {row}>"


def select_planes(kind: str, team: int, pack: int) -> Name:
    """MAX and MIN of whole planes, each read by a team of threads, a pack of elements at a time."""
    return "whole.cu", f"select_planes<{kind}, {team}, {pack}>"


def sum_planes(element: str, team: int, pack: int) -> Name:
    """AVERAGE and SUM of whole planes."""
    return "whole.cu", f"sum_planes<{element}, {team}, {pack}>"


def select_by_teams(kind: str, team: int) -> Name:
    """MAX and MIN of large windows, each read by a team of threads."""
    return "teams.cu", f"select_by_teams<{kind}, {team}>"


def sum_by_teams(element: str, team: int) -> Name:
    """AVERAGE and SUM of large windows."""
    return "teams.cu", f"sum_by_teams<{element}, {team}>"


def sum_integers(element: str, result: str, shape: str) -> Name:
    """AVERAGE and SUM of integers; `result` is the type of the output, by its name here."""
    return "integers.cu", f"sum_integers<{element}, {result}, {shape}>"


def sum_integers_by_teams(element: str, result: str, team: int) -> Name:
    """AVERAGE and SUM of large windows of integers."""
    return "integers.cu", f"sum_integers_by_teams<{element}, {result}, {team}>"


def sum_integer_planes(element: str, result: str, team: int, pack: int) -> Name:
    """AVERAGE and SUM of whole planes of integers."""
    return "integers.cu", f"sum_integer_planes<{element}, {result}, {team}, {pack}>"


def select_gradients(element: str, index: str, shape: str) -> Name:
    """The gradient of MAX and MIN."""
    return "backward.cu", f"select_gradients<{element}, {index}, {shape}>"


def sum_gradients(element: str, shape: str) -> Name:
    """The gradient of AVERAGE and SUM."""
    return "backward.cu", f"sum_gradients<{element}, {shape}>"


def select_row_gradients(element: str, index: str, row: str) -> Name:
    """The gradient of MAX and MIN, for neighbours together."""
    return "rows.cu", f"select_row_gradients<{element}, {index}, {row}>"


def sum_row_gradients(element: str, row: str) -> Name:
    """The gradient of AVERAGE and SUM, for neighbours together."""
    return "rows.cu", f"sum_row_gradients<{element}, {row}>"


def to_positions(index: str, shape: str) -> Name:
    """Window indices as positions."""
    return "positions.cu", f"to_positions<{index}, {shape}>"


def from_positions(index: str, shape: str) -> Name:
    """Positions as window indices, checked."""
    return "positions.cu", f"from_positions<{index}, {shape}>"


def share_windows(element: str, ignores: bool, shape: str) -> Name:
    """The gradients of MAX and MIN, over the numbers of tied taps."""
    return "ties.cu", f"share_windows<{element}, {_word(ignores)}, {shape}>"


def share_by_teams(element: str, ignores: bool, team: int) -> Name:
    """The same for large windows, each read by a team of threads."""
    return "teams.cu", f"share_by_teams<{element}, {_word(ignores)}, {team}>"


def tie_gradients(element: str, share: str, ignores: bool, shape: str) -> Name:
    """The gradient of MAX and MIN for all tied taps; `share` is the type of what they receive."""
    return "ties.cu", f"tie_gradients<{element}, {share}, {_word(ignores)}, {shape}>"


def share_rows(element: str, ignores: bool, row: str) -> Name:
    """What `share_windows` does, for neighbours together."""
    return "tie_rows.cu", f"share_rows<{element}, {_word(ignores)}, {row}>"


def tie_row_gradients(element: str, share: str, ignores: bool, row: str) -> Name:
    """What `tie_gradients` does, for neighbours together."""
    return "tie_rows.cu", f"tie_row_gradients<{element}, {share}, {_word(ignores)}, {row}>"


def norm_windows(kind: str, shape: str) -> Name:
    """Norms; `kind` is what `norm_of` gives."""
    return "norms.cu", f"norm_windows<{kind}, {shape}>"


def norm_by_teams(kind: str, team: int) -> Name:
    """Norms of large windows, each read by a team of threads."""
    return "norm_teams.cu", f"norm_by_teams<{kind}, {team}>"


def norm_planes(kind: str, team: int, pack: int) -> Name:
    """Norms of whole planes."""
    return "norm_teams.cu", f"norm_planes<{kind}, {team}, {pack}>"


def norm_gradients(element: str, norm: str, shape: str) -> Name:
    """The gradient of norms."""
    return "norms.cu", f"norm_gradients<{element}, {norm}, {shape}>"


def norm_of(element: str, result: str, norm: str) -> str:
    """Which norm, of what: the template arguments that kernels for norms begin with.

    Args:
        element: one of `ELEMENTS`.
        result: the type of the norms: the element's, or `KEPT`.
        norm: one of `NORMS`.
    """
    return f"{element}, {result}, {norm}"


def shape_of(rank: int, shared: bool, is_small: bool, channels: int) -> str:
    """The template arguments that follow from the windows and the layout.

    Args:
        rank: the spatial axes; those of one axis are computed as of two.
        shared: whether windows may share out an axis; such kernels have all three axes.
        is_small: whether 32 bits number all positions; other kernels take whatever is shared.
        channels: those of a thread; 1 for channels first.
    """
    return f"{rank}, {_word(shared)}, {'i32' if is_small else 'i64'}, {channels}"


def row_of(window: tuple[int, int, int], neighbours: int) -> str:
    """The template arguments of kernels that read rows.

    Args:
        window: one of `ROW_WINDOWS`.
        neighbours: the elements of a row that a thread computes, one of `neighbours_of`.
    """
    return ", ".join(map(str, (*window, neighbours)))


def neighbours_of(dtype: np.dtype[Any]) -> tuple[int, ...]:
    """How many elements of a row a thread may compute: those of 16 bytes, or of 8, or one.

    Of integers, which have fewer kernels, those of 8 bytes only.
    """
    if dtype in INTEGERS:
        return (8 // dtype.itemsize,)
    return (*(size // dtype.itemsize for size in (16, 8) if size > dtype.itemsize), 1)


def _word(flag: bool) -> str:
    return "true" if flag else "false"
