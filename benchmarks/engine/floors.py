"""What no engine can beat: reading the input once, or writing the gradient once.

Both go over the memory on the engine's own threads, in the runs that its kernels are given.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np

from pooling_engine.runtime.threads import run_range

WORD = 8  # bytes


def read_once(x: np.ndarray) -> Callable[[], int]:
    """Reads an array, and makes one number of all its words so that none is left out."""
    words = x.reshape(-1).view(np.int64)
    return lambda: sum(run_range(lambda begin, end: _xor(words, begin, end), len(words), x.nbytes))


def write_once(dx: np.ndarray) -> Callable[[], None]:
    """Fills an array, whose pages must be there."""
    row = dx.reshape(-1)

    def fill(begin: int, end: int) -> None:
        row[begin:end].fill(0)

    return lambda: run_range(fill, row.size, dx.nbytes) and None


@numba.njit(nogil=True)
def _xor(words, begin, end):
    result = 0
    for i in range(begin, end):
        result ^= words[i]
    return result
