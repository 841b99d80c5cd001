"""What leaves a doubt about an extreme, which only the order of the taps can settle."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from pooling_engine.backends.numba_backend.language.elements import implements, uint32_of, uint64_of
from pooling_engine.backends.numba_backend.language.jit import part
from pooling_engine.backends.numba_backend.language.pointers import get


def is_negative_zero(value: Any) -> Any:
    """Whether it is -0.0."""


@implements(is_negative_zero)
def _is_negative_zero(value: Any) -> Any:
    if value == types.float32:
        return lambda value: uint32_of(value) == np.uint32(0x80000000)
    return lambda value: uint64_of(value) == np.uint64(0x8000000000000000)


@part
def has_negative_zero(values: Any, count: int) -> bool:
    """Whether any is -0.0."""
    found = False
    for i in range(count):
        found |= is_negative_zero(get(values, i))
    return found


@part
def has_zero(values: Any, count: int) -> bool:
    """Whether any is zero."""
    found = False
    for i in range(count):
        found |= get(values, i) == 0
    return found


@part
def has_nan(values: Any, count: int) -> bool:
    """Whether any is a NaN."""
    found = False
    for i in range(count):
        found |= get(values, i) != get(values, i)
    return found
