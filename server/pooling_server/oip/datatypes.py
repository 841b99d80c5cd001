"""Datatypes of the protocol and the element types of NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pooling_engine import InvalidTensorError
from pooling_engine.dtypes import BFLOAT16
from pooling_wire import check_empty

_NAMES = {
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
    "INT8": "i1",
    "UINT8": "u1",
    "INT16": "<i2",
    "UINT16": "<u2",
    "INT32": "<i4",
    "UINT32": "<u4",
    "INT64": "<i8",
}
DTYPES: dict[str, np.dtype[Any]] = {name: np.dtype(code) for name, code in _NAMES.items()}
if BFLOAT16 is not None:
    DTYPES["BF16"] = BFLOAT16
DATATYPES = {dtype: name for name, dtype in DTYPES.items()}
RAW_ONLY = ("FP16", "BF16")  # the protocol has no other representation of their elements
MAX_AXES = 8


def dtype_of(datatype: str, field: str) -> np.dtype[Any]:
    """Return the element type of a datatype.

    Raises:
        InvalidTensorError: pooling has no such element type.
    """
    if datatype not in DTYPES:
        raise InvalidTensorError(
            f"{field}.datatype is {datatype!r}; it must be one of {', '.join(DTYPES)}",
            field=f"{field}.datatype",
        )
    return DTYPES[datatype]


def checked_shape(sizes: Any, field: str) -> tuple[int, ...]:
    """Return a shape as a tuple.

    Raises:
        InvalidTensorError: it has too many axes, or an entry is not a size.
        TensorTooLargeError: it is empty, and too large along other axes.
    """
    if len(sizes) > MAX_AXES:
        raise InvalidTensorError(
            f"{field}.shape has {len(sizes)} axes; at most {MAX_AXES} are legal",
            field=f"{field}.shape",
        )
    shape = tuple(sizes)
    if not all(type(size) is int and 0 <= size < 2**63 for size in shape):
        raise InvalidTensorError(
            f"{field}.shape is {list(shape)}; its entries must be sizes, at least 0",
            field=f"{field}.shape",
        )
    check_empty(shape, f"{field}.shape")
    return shape


def raw_array(
    data: bytes | memoryview, datatype: str, shape: tuple[int, ...], field: str, source: str
) -> NDArray[Any]:
    """Return the elements of a tensor as a view of its bytes.

    Args:
        data: the bytes, little-endian.
        datatype: datatype of the tensor.
        shape: shape of the tensor.
        field: the tensor in the request, such as "inputs[0]".
        source: the bytes in the request, such as "raw_input_contents[0]".

    Raises:
        InvalidTensorError: the datatype is unknown, or the number of bytes is wrong.
    """
    dtype = dtype_of(datatype, field)
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise InvalidTensorError(
            f"{source} has {len(data)} bytes; shape {list(shape)} of {datatype} takes {expected}",
            field=source,
        )
    return np.ndarray(shape, dtype, data)
