"""Memory-bandwidth floor: the time to read the input once, or to write the gradient once.

Both run on the engine's threads, over the same ranges of memory as its kernels.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np

from pooling_engine.runtime import run_range

WORD = 8  # bytes


def read_once(x: np.ndarray) -> Callable[[], int]:
    """Return a call that reads an array and combines all its words, so that none is skipped."""
    words = x.reshape(-1).view(np.int64)
    return lambda: sum(run_range(lambda begin, end: _xor(words, begin, end), len(words), x.nbytes))


def write_once(dx: np.ndarray) -> Callable[[], None]:
    """Return a call that fills an array; its pages must be mapped already."""
    row = dx.reshape(-1)

    def fill(begin: int, end: int) -> None:
        row[begin:end].fill(0)

    return lambda: run_range(fill, row.size, dx.nbytes) and None


@numba.njit(nogil=True)
def _xor(words, begin, end):
    # A loop from 0 to the size reads in vectors; with other bounds, an index may be negative.
    part = words[begin:end]
    result = np.int64(0)
    for i in range(part.size):
        result ^= part[i]
    return result
