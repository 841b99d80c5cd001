"""Input values that expose differences between implementations, by name."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from tests.support import cases

DTYPES = tuple(map(np.dtype, ("float16", ml_dtypes.bfloat16, "float32", "float64")))
INTEGERS = tuple(map(np.dtype, cases.INTEGERS))


def bits(shape, dtype, seed):
    """Return random bits: NaNs of every payload, infinities, extreme numbers, zeros."""
    unsigned = f"u{dtype.itemsize}"
    top = np.iinfo(unsigned).max
    drawn = np.random.default_rng(seed).integers(0, top, shape, unsigned, endpoint=True)
    return drawn.view(dtype)


def numbers(shape, dtype, seed):
    """Return random bits without NaNs."""
    drawn = bits(shape, dtype, seed)
    with np.errstate(invalid="ignore"):
        drawn[np.isnan(drawn)] = 1
    return drawn


def one_nan(shape, dtype, seed):
    """Return normal numbers and one negative NaN with a payload."""
    drawn = cases.normal(shape, dtype, seed)
    if drawn.size:
        unsigned = f"u{dtype.itemsize}"
        drawn.reshape(-1).view(unsigned)[seed % drawn.size] = np.iinfo(unsigned).max - 2
    return drawn


def tiny(shape, dtype, seed):
    """Return denormal numbers of both signs, and the smallest normal ones."""
    smallest = ml_dtypes.finfo(dtype).smallest_subnormal
    counts = np.random.default_rng(seed).integers(-9, 9, shape)
    return (counts * np.float64(smallest)).astype(dtype)


def huge(shape, dtype, seed):
    """Return numbers whose sums overflow, and infinities whose sums are NaN."""
    largest = ml_dtypes.finfo(dtype).max
    palette = np.array([largest, -largest, largest, np.inf, -np.inf, 1], dtype)
    return np.random.default_rng(seed).choice(palette, shape)


def zeros(shape, dtype, seed):
    """Return zeros of both signs."""
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
    """Return the generators for an element type."""
    return INTEGER_VALUES if dtype in INTEGERS else VALUES
