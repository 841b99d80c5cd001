"""Compile every kernel once, on all cores, so that parallel test processes do not all do it."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from itertools import product

import numpy as np

from pooling_engine import PoolSpec, backward, forward

MODES = ("max", "average", "min")  # most kernels first; no kernel is shared between modes
DTYPES = (np.float32, np.float64, np.float16)  # bfloat16 uses the kernels of float16
WINDOWS = (
    {"kernel": 2},
    {"kernel": 2, "stride": 1},
    {"kernel": (75, 4)},  # more than 255 taps: two-byte indices
    {"kernel": (75, 4), "stride": 1},
    {"kernel": 2, "stride": 1, "layout": "channels_last"},
    {"kernel": 3, "stride": 1},
    {"global_window": True},
    {"global_window": True, "layout": "channels_last"},
)
POLICIES = ("propagate", "ignore")  # of extremes


def compile_for(mode: str, dtype: type) -> None:
    """Run forward and backward for every kind of window that has its own kernel."""
    x = np.zeros((1, 80, 80, 64), dtype)
    for options in WINDOWS:
        spec = PoolSpec(mode, **options)
        output, indices = forward(x, spec, backend="numba")
        for policy in POLICIES if mode != "average" else ():
            spec = PoolSpec(mode, **options, nan_policy=policy)
            forward(x, spec, backend="numba")
            output, indices = forward(x, spec, return_indices=True, backend="numba")
        if mode != "min":  # min uses the gradient kernels of max
            sent = {"input_shape": x.shape, "indices": indices}
            backward(output, spec, backend="numba", **sent)


if __name__ == "__main__":
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        list(processes.map(compile_for, *zip(*product(MODES, DTYPES), strict=True)))
