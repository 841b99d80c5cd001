"""Compiles every kernel once, on all cores, before tests in several processes all do so."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from itertools import product

import numpy as np

from pooling_engine import PoolSpec, backward, forward

MODES = ("max", "average", "min")  # those with most kernels first; no two have one in common
DTYPES = (np.float32, np.float64, np.float16)  # kernels for float16 are those for bfloat16
WINDOWS = (
    {"kernel": 2},
    {"kernel": 2, "stride": 1},
    {"kernel": (75, 4)},  # so many taps that indices have two bytes
    {"kernel": (75, 4), "stride": 1},
    {"kernel": 2, "stride": 1, "layout": "channels_last"},
    {"global_window": True},
)


def compile_for(mode: str, dtype: type) -> None:
    """Pools there and back in every way that has a kernel of its own."""
    x = np.zeros((1, 80, 80, 64), dtype)
    for options in WINDOWS:
        spec = PoolSpec(mode, **options)
        output, indices = forward(x, spec, backend="numba")
        if mode != "average":
            output, indices = forward(x, spec, return_indices=True, backend="numba")
        if mode != "min":  # the gradients of minima are computed by the kernels for maxima
            sent = {"input_shape": x.shape, "indices": indices}
            backward(output, spec, backend="numba", **sent)


if __name__ == "__main__":
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        list(processes.map(compile_for, *zip(*product(MODES, DTYPES), strict=True)))
