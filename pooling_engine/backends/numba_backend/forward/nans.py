"""NaNs among the outputs of MAX and MIN."""

from __future__ import annotations

import numpy as np

from pooling_engine.backends.numba_backend.language.jit import part
from pooling_engine.backends.numba_backend.language.operations import pick
from pooling_engine.backends.numba_backend.language.pointers import Pointer, convert, get, put


@part
def has_nan(values: Pointer, count: int) -> bool:
    """Return whether any output is a NaN."""
    found = False
    for i in range(count):
        found |= get(values, i) != get(values, i)
    return found


@part
def write_canonical_nans(values: Pointer, count: int) -> None:
    """Replace NaNs by the canonical one: no element is selected there."""
    nan = convert(np.nan, values)
    for i in range(count):
        value = get(values, i)
        put(values, i, pick(value == value, value, nan))
