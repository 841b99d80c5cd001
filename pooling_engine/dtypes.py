"""The element types that tensors may have, and how results are rounded to them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

try:  # NumPy has no bfloat16 of its own
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
    """Whether it is bfloat16, which NumPy's own functions do not take."""
    return BFLOAT16 is not None and dtype == BFLOAT16


def as_summable(array: Array) -> Array:
    """The array in a type that NumPy's functions add up: bfloat16 becomes float32."""
    return array.astype(np.float32) if is_bfloat16(array.dtype) else array


def store(target: Array, values: Array) -> None:
    """Writes float32 or float64 values into an array of another type, each rounded once."""
    if target.dtype.itemsize == 2 and values.dtype == np.float64:
        # Casts to 16 bits go by way of float32 and round twice; rounded to odd, float32 keeps
        # what the second rounding must know.
        values = _float32_to_odd(values)
    np.copyto(target, values, casting="same_kind")


def _float32_to_odd(values: Array) -> Array:
    """Rounded towards zero, and with a last bit of 1 where anything was cut off."""
    nearest = values.astype(np.float32)
    bits = nearest.view(np.uint32)
    is_inexact = (nearest != values) & ~np.isnan(values)
    bits -= is_inexact & (np.abs(nearest) > np.abs(values))
    bits |= is_inexact
    return nearest
