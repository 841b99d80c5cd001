"""Table of the CUDA kernels: source file, template parameters and compiled specialisations.

A kernel is a C++ template. The name of a specialisation, such as `sum_by_teams<float, 8>`, says
everything that it was compiled for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from pooling_engine.dtypes import FLOATS, INTEGERS

DType = np.dtype[Any]
Arguments = Mapping[str, str | int | bool]  # template parameter: its value
Name = tuple[str, str]  # source file, specialised name
Domain = Callable[[DType], Sequence[Arguments]]

VECTOR_BYTES = 16  # bytes that a thread reads or writes at once, where the layout allows it
_WORDS = {"float16": "Half", "bfloat16": "Brain", "float32": "float", "float64": "double"}
_WORDS |= {"int8": "i8", "uint8": "u8", "int16": "i16", "int32": "i32", "int64": "i64"}
ELEMENTS = {dtype: _WORDS[dtype.name] for dtype in FLOATS + INTEGERS}
INDICES: dict[DType, str] = {
    np.dtype(np.uint8): "u8",
    np.dtype(np.uint16): "u16",
    np.dtype(np.uint32): "u32",
}
NO_INDICES = "None"
TIE_SHARE = "double"  # type of a gradient divided by the number of tied elements
NORM_RESIDUAL = "double"  # type of the norms that a gradient needs
ORDERS = ("Larger", "Smaller")
NORMS = ("MAGNITUDES", "SQUARES", "LARGEST", "FIRST_LARGEST", "POWERS")  # see `norms.cu`
OWN_BITS = ("norms.cu", "norm_teams.cu")  # files whose results may differ from NumPy's in the bits

# (kernel, stride, padding before) along the innermost axis for which rows are read in packs.
ROW_WINDOWS = ((2, 2, 0), (3, 1, 1), (3, 2, 0), (3, 2, 1), (5, 1, 2), (7, 1, 3))
SQUARE_ROWS = {3: 3, 5: 4, 7: 4}  # kernel of a square stride-1 window: output rows per thread
ROW_INDEX = np.dtype(np.uint8)  # index type of the row kernels
WINDOW_TEAMS = (8, 32)  # threads that read one window together
SELECT_TEAMS = (32, 256)  # threads that search one plane together
SUM_TEAMS = (16, 64, 256)  # threads that sum one plane together


class Kernel(NamedTuple):
    """A kernel template and the specialisations of it that are compiled.

    Attributes:
        file: source file in `cuda/`.
        parameters: template parameters in order, separated by spaces. The first is the element
            type (for the position kernels the index type).
        dtypes: values of the first parameter.
        domains: for each group of other parameters, a function from the first parameter to the
            values of the group. The kernel is compiled for the product of the groups.
    """

    file: str
    parameters: str
    dtypes: tuple[DType, ...]
    domains: tuple[Domain, ...]


def kernel_name(kernel: str, **arguments: str | int | bool) -> Name:
    """Return the source file and the specialised name of a kernel.

    Args:
        kernel: a key of `KERNELS`.
        arguments: a value for each template parameter.

    Raises:
        TypeError: the arguments are not those of the kernel.
    """
    file, parameters, *_ = KERNELS[kernel]
    names = parameters.split()
    if arguments.keys() != set(names):
        raise TypeError(f"{kernel} takes {parameters}, not {' '.join(arguments)}")
    return file, f"{kernel}<{', '.join(_word(arguments[name]) for name in names)}>"


def all_kernels() -> Iterator[Name]:
    """Yield the name of every specialisation that a plan can ask for."""
    for name, kernel in KERNELS.items():
        first = kernel.parameters.split()[0]
        for dtype in kernel.dtypes:
            groups = (domain(dtype) for domain in kernel.domains)
            for chosen in product(*groups):
                arguments: dict[str, str | int | bool] = {first: (ELEMENTS | INDICES)[dtype]}
                for group in chosen:
                    arguments |= group
                yield kernel_name(name, **arguments)


def shape_arguments(rank: int, adaptive: bool, is_small: bool, channels: int) -> Arguments:
    """Return the template arguments that follow from the windows and the layout.

    Args:
        rank: number of spatial axes; plans of one axis use the kernels of two.
        adaptive: whether axes may be adaptive; such kernels have three axes.
        is_small: whether 32 bits number all positions; 64-bit kernels are always adaptive.
        channels: channels per thread; 1 for channels first.
    """
    return {"RANK": rank, "SHARED": adaptive, "N": "i32" if is_small else "i64", "V": channels}


def row_arguments(window: tuple[int, int, int], neighbours: int) -> Arguments:
    """Return the template arguments of the kernels that read rows.

    Args:
        window: one of `ROW_WINDOWS`.
        neighbours: elements of a row per thread, one of `neighbour_counts`.
    """
    kernel, stride, padding = window
    return {"K": kernel, "STRIDE": stride, "PAD": padding, "V": neighbours}


def neighbour_counts(dtype: DType) -> tuple[int, ...]:
    """Return the numbers of row elements that a thread may compute, largest first.

    These are 16 bytes, 8 bytes or one element; for integers, which have fewer kernels, 8 bytes.
    """
    if dtype in INTEGERS:
        return (8 // dtype.itemsize,)
    return (*(size // dtype.itemsize for size in (16, 8) if size > dtype.itemsize), 1)


def _word(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _values(name: str, values: Sequence[str | int | bool]) -> Domain:
    """Return the domain of one parameter that has the same values for every element type."""
    return lambda dtype: [{name: value} for value in values]


def _selections(dtype: DType, indices: Sequence[str] = tuple(INDICES.values())) -> list[Arguments]:
    policies = (False, True) if dtype in FLOATS else (False,)  # integers have no NaN to ignore
    return [
        {"I": index, "Order": order, "IGNORES": ignores}
        for index, order, ignores in product((NO_INDICES, *indices), ORDERS, policies)
    ]


def _row_selections(dtype: DType) -> list[Arguments]:
    return _selections(dtype, (INDICES[ROW_INDEX],))


def _shapes(dtype: DType) -> list[Arguments]:
    windows = ((3, True),) if dtype in INTEGERS else ((2, False), (3, False), (3, True))
    counts = (1, VECTOR_BYTES // dtype.itemsize)
    small = [shape_arguments(*window, True, count) for window in windows for count in counts]
    return [*small, shape_arguments(3, True, False, 1)]


def _position_shapes(dtype: DType) -> list[Arguments]:
    windows = ((2, False, True), (3, False, True), (3, True, True), (3, True, False))
    return [shape_arguments(*window, 1) for window in windows]


def _rows(dtype: DType) -> list[Arguments]:
    counts = neighbour_counts(dtype)
    return [row_arguments(window, count) for window, count in product(ROW_WINDOWS, counts)]


def _gradient_rows(dtype: DType) -> list[Arguments]:
    """Return the rows of a gradient: a thread computes whole strides of the input."""
    return [row for row in _rows(dtype) if not int(row["V"]) % int(row["STRIDE"])]


def _square_rows(dtype: DType) -> list[Arguments]:
    rows = (row for row in _rows(dtype) if row["STRIDE"] == 1)
    return [{**row, "ROWS": SQUARE_ROWS[int(row["K"])]} for row in rows]


def _packs(dtype: DType) -> list[Arguments]:
    return [{"V": 1}, {"V": VECTOR_BYTES // dtype.itemsize}]


def _tie_shares(dtype: DType) -> list[Arguments]:
    return [{"S": share} for share in sorted({ELEMENTS[dtype], TIE_SHARE})]


def _norms(dtype: DType) -> list[Arguments]:
    """Return the norms of the forward pass, and those that a gradient needs."""
    forward = {(ELEMENTS[dtype], norm) for norm in NORMS if norm != "FIRST_LARGEST"}
    residual = {(NORM_RESIDUAL, norm) for norm in NORMS if norm != "LARGEST"}
    return [{"Y": result, "NORM": norm} for result, norm in sorted(forward | residual)]


def _integer_results(dtype: DType) -> list[Arguments]:
    average = "double" if dtype == np.int64 else "float"
    return [{"R": "i64"}, {"R": average}]


_ANY = FLOATS + INTEGERS
_INDEX_DTYPES = tuple(INDICES)
_indices = _values("I", tuple(INDICES.values()))
_row_indices = _values("I", (INDICES[ROW_INDEX],))
_ignores = _values("IGNORES", (False, True))
_window_teams, _select_teams, _sum_teams = (
    _values("TEAM", teams) for teams in (WINDOW_TEAMS, SELECT_TEAMS, SUM_TEAMS)
)
_gradient_norms = _values("NORM", tuple(norm for norm in NORMS if norm != "LARGEST"))

KERNELS = {
    "select_windows": Kernel(
        "forward.cu", "E I Order IGNORES RANK SHARED N V", _ANY, (_selections, _shapes)
    ),
    "sum_windows": Kernel("forward.cu", "E RANK SHARED N V", FLOATS, (_shapes,)),
    "select_gradients": Kernel("backward.cu", "E I RANK SHARED N V", FLOATS, (_indices, _shapes)),
    "sum_gradients": Kernel("backward.cu", "E RANK SHARED N V", FLOATS, (_shapes,)),
    "select_rows": Kernel(
        "rows.cu", "E I Order IGNORES K STRIDE PAD V", _ANY, (_row_selections, _rows)
    ),
    "sum_rows": Kernel("rows.cu", "E K STRIDE PAD V", FLOATS, (_rows,)),
    "select_row_gradients": Kernel(
        "rows.cu", "E I K STRIDE PAD V", FLOATS, (_row_indices, _gradient_rows)
    ),
    "sum_row_gradients": Kernel("rows.cu", "E K STRIDE PAD V", FLOATS, (_gradient_rows,)),
    "select_square_rows": Kernel(
        "square_rows.cu",
        "E I Order IGNORES K STRIDE PAD V ROWS",
        _ANY,
        (_row_selections, _square_rows),
    ),
    "select_by_teams": Kernel(
        "teams.cu", "E I Order IGNORES TEAM", _ANY, (_selections, _window_teams)
    ),
    "sum_by_teams": Kernel("teams.cu", "E TEAM", FLOATS, (_window_teams,)),
    "share_by_teams": Kernel("teams.cu", "E IGNORES TEAM", FLOATS, (_ignores, _window_teams)),
    "select_planes": Kernel(
        "whole.cu", "E I Order IGNORES TEAM V", _ANY, (_selections, _select_teams, _packs)
    ),
    "sum_planes": Kernel("whole.cu", "E TEAM V", FLOATS, (_sum_teams, _packs)),
    "share_windows": Kernel("ties.cu", "E IGNORES RANK SHARED N V", FLOATS, (_ignores, _shapes)),
    "tie_gradients": Kernel(
        "ties.cu", "E S IGNORES RANK SHARED N V", FLOATS, (_tie_shares, _ignores, _shapes)
    ),
    "share_rows": Kernel("tie_rows.cu", "E IGNORES K STRIDE PAD V", FLOATS, (_ignores, _rows)),
    "tie_row_gradients": Kernel(
        "tie_rows.cu", "E S IGNORES K STRIDE PAD V", FLOATS, (_tie_shares, _ignores, _gradient_rows)
    ),
    "norm_windows": Kernel("norms.cu", "E Y NORM RANK SHARED N V", FLOATS, (_norms, _shapes)),
    "norm_gradients": Kernel(
        "norms.cu", "E NORM RANK SHARED N V", FLOATS, (_gradient_norms, _shapes)
    ),
    "norm_by_teams": Kernel("norm_teams.cu", "E Y NORM TEAM", FLOATS, (_norms, _window_teams)),
    "norm_planes": Kernel(
        "norm_teams.cu", "E Y NORM TEAM V", FLOATS, (_norms, _select_teams, _packs)
    ),
    "sum_integers": Kernel(
        "integers.cu", "E R RANK SHARED N V", INTEGERS, (_integer_results, _shapes)
    ),
    "sum_integers_by_teams": Kernel(
        "integers.cu", "E R TEAM", INTEGERS, (_integer_results, _window_teams)
    ),
    "sum_integer_planes": Kernel(
        "integers.cu", "E R TEAM V", INTEGERS, (_integer_results, _select_teams, _packs)
    ),
    "to_positions": Kernel("positions.cu", "I RANK SHARED N V", _INDEX_DTYPES, (_position_shapes,)),
    "from_positions": Kernel(
        "positions.cu", "I RANK SHARED N V", _INDEX_DTYPES, (_position_shapes,)
    ),
}
