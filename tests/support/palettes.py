"""Values that tell one way to compute from another, by the name of what is hard about them."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from tests.support import cases

DTYPES = tuple(map(np.dtype, ("float16", ml_dtypes.bfloat16, "float32", "float64")))
INTEGERS = tuple(map(np.dtype, cases.INTEGERS))


def bits(shape, dtype, seed):
    """Anything: NaNs of every payload, infinities, the largest, the smallest, zeros."""
    unsigned = f"u{dtype.itemsize}"
    top = np.iinfo(unsigned).max
    drawn = np.random.default_rng(seed).integers(0, top, shape, unsigned, endpoint=True)
    return drawn.view(dtype)


def numbers(shape, dtype, seed):
    """Anything but NaNs."""
    drawn = bits(shape, dtype, seed)
    with np.errstate(invalid="ignore"):
        drawn[np.isnan(drawn)] = 1
    return drawn


def one_nan(shape, dtype, seed):
    """A negative NaN with a payload somewhere among numbers."""
    drawn = cases.normal(shape, dtype, seed)
    if drawn.size:
        unsigned = f"u{dtype.itemsize}"
        drawn.reshape(-1).view(unsigned)[seed % drawn.size] = np.iinfo(unsigned).max - 2
    return drawn


def tiny(shape, dtype, seed):
    """Denormal numbers of both signs, and what is just above them."""
    smallest = ml_dtypes.finfo(dtype).smallest_subnormal
    counts = np.random.default_rng(seed).integers(-9, 9, shape)
    return (counts * np.float64(smallest)).astype(dtype)


def huge(shape, dtype, seed):
    """Sums of them overflow, and those of infinities are NaNs."""
    largest = ml_dtypes.finfo(dtype).max
    palette = np.array([largest, -largest, largest, np.inf, -np.inf, 1], dtype)
    return np.random.default_rng(seed).choice(palette, shape)


def zeros(shape, dtype, seed):
    """Zeros of both signs."""
    return np.random.default_rng(seed).choice(np.array([0.0, -0.0], dtype), shape)


VALUES = {
    "normal": cases.normal,
    "ties": lambda shape, dtype, seed: cases.hard(shape, dtype, seed, has_nan=False),
    "hard": cases.hard,
    "bits": bits,
    "numbers": numbers,
    "one NaN": one_nan,
    "tiny": tiny,
    "huge": huge,
    "zeros": zeros,
}

INTEGER_VALUES = {"normal": cases.integers, "hard": cases.extremes, "bits": bits}


def values_of(dtype):
    """Those that an element type has."""
    return INTEGER_VALUES if dtype in INTEGERS else VALUES
