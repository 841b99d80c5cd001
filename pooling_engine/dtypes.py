"""Element types of tensors, and rounding of results to them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

try:  # NumPy does not have bfloat16
    from ml_dtypes import bfloat16
except ImportError:
    bfloat16 = None

Array = NDArray[Any]

BFLOAT16: np.dtype[Any] | None = None if bfloat16 is None else np.dtype(bfloat16)
FLOATS: tuple[np.dtype[Any], ...] = tuple(
    dtype
    for dtype in (np.dtype(np.float16), BFLOAT16, np.dtype(np.float32), np.dtype(np.float64))
    if dtype is not None
)
INTEGERS = tuple(np.dtype(name) for name in ("int8", "uint8", "int16", "int32", "int64"))
LEGAL_NAMES = ", ".join(dtype.name for dtype in FLOATS + INTEGERS)
FLOAT_NAMES = ", ".join(dtype.name for dtype in FLOATS)


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Return whether a type is bfloat16, which most NumPy functions do not accept."""
    return BFLOAT16 is not None and dtype == BFLOAT16


def as_summable(array: Array) -> Array:
    """Return the array in a type that NumPy can sum: bfloat16 becomes float32."""
    return array.astype(np.float32) if is_bfloat16(array.dtype) else array


def store(target: Array, values: Array) -> None:
    """Write float32 or float64 values into an array of another type, rounding each once."""
    if target.dtype.itemsize == 2 and values.dtype == np.float64:
        # A cast to 16 bits goes through float32 and rounds twice. Rounding to odd in float32
        # keeps the information that the second rounding needs.
        values = _float32_to_odd(values)
    np.copyto(target, values, casting="same_kind")


def _float32_to_odd(values: Array) -> Array:
    """Round towards zero, and set the last bit of every value that was not exact."""
    nearest = values.astype(np.float32)
    bits = nearest.view(np.uint32)
    is_inexact = (nearest != values) & ~np.isnan(values)
    bits -= is_inexact & (np.abs(nearest) > np.abs(values))
    bits |= is_inexact
    return nearest
