"""How numbers are rounded to the element types, apart from the engine's own way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Format:
    """A binary format of floating-point numbers.

    Attributes:
        bits: of the significand, the hidden one included.
        least: the exponent of the smallest normal number, as `math.frexp` counts.
    """

    bits: int
    least: int

    @property
    def epsilon(self) -> float:
        """The distance from 1 to the next number."""
        return 2.0 ** (1 - self.bits)

    @property
    def smallest(self) -> float:
        """The smallest number above zero."""
        return 2.0 ** (self.least - self.bits)


_FORMATS = {
    "bfloat16": Format(8, -125),
    "float16": Format(11, -13),
    "float32": Format(24, -125),
    "float64": Format(53, -1021),
}


def format_of(dtype: np.dtype[Any]) -> Format:
    """The format of a floating-point type."""
    return _FORMATS[dtype.name]


def round_to(dtype: np.dtype[Any], values: NDArray[np.float64]) -> Array:
    """The numbers of a type that are nearest to values; of two as near, the even one."""
    if dtype.itemsize == 2:  # NumPy's own cast may go by way of float32 and round twice
        form = format_of(dtype)
        exponents = np.maximum(np.frexp(values)[1], form.least) - form.bits
        with np.errstate(all="ignore"):
            quanta = np.ldexp(1.0, exponents)
            values = np.where(np.isfinite(values), np.rint(values / quanta) * quanta, values)
    with np.errstate(all="ignore"):
        return values.astype(dtype)
