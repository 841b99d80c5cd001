"""Helpers of the GPU tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pooling_engine.backends.cupy_backend.backend import CupyBackend
from pooling_engine.backends.cupy_backend.planning import (
    choosing,
    geometry,
    launches,
    positions,
)

Array = NDArray[Any]
Events = list[tuple[int, str]]  # `EVENTS` of the fake CuPy
UseBackend = Callable[..., CupyBackend]  # the fixture `use_backend`
LAUNCH_CACHES = (
    launches.forward_launch,
    launches.backward_launch,
    launches.residual_norm_launch,
    launches.tie_share_launch,
    positions.positions_launch,
)
LAST = {"layout": "channels_last"}
# One call of every mode and policy, some in each layout.
KINDS: tuple[dict[str, Any], ...] = (
    {"mode": "max", "kernel": 3, "stride": 2, "padding": 1},
    {"mode": "min", "kernel": (4, 3), "nan_policy": "error"},
    {"mode": "max", "kernel": 2, "nan_policy": "ignore"} | LAST,
    {"mode": "average", "kernel": 3, "stride": 2, "padding": 1, "count_include_pad": False},
    {"mode": "average", "kernel": 2} | LAST,
    {"mode": "sum", "adaptive_output": (4, 3)},
    {"mode": "max", "global_window": True},
    {"mode": "lp", "norm_p": 1, "kernel": 3, "stride": 2, "padding": 1},
    {"mode": "lp", "norm_p": np.inf, "kernel": 2} | LAST,
    {"mode": "max", "kernel": 3, "stride": 2, "padding": 1, "tie_policy": "split"},
    {"mode": "min", "kernel": 2, "tie_policy": "all", "nan_policy": "error"} | LAST,
)


def on_device(backend: CupyBackend, array: Array) -> Any:
    """Return a device copy of an array."""
    return backend.to_device(np.ascontiguousarray(array))


@contextmanager
def patched_planner(patch_it: Callable[[pytest.MonkeyPatch], None]) -> Iterator[None]:
    """Patch the planner within a block, without any cached launches."""
    with pytest.MonkeyPatch.context() as patch:
        patch_it(patch)
        for cached in LAUNCH_CACHES:
            cached.cache_clear()
        try:
            yield
        finally:
            for cached in LAUNCH_CACHES:
                cached.cache_clear()


def positions_of_64_bits(patch: pytest.MonkeyPatch) -> None:
    """Number all positions with 64 bits, as for huge tensors."""
    patch.setattr(geometry, "MAX_POSITIONS_32", 0)


def several_rows_per_thread(patch: pytest.MonkeyPatch) -> None:
    """Let a thread compute several rows, as for tensors that fill a large GPU."""
    patch.setattr(choosing, "FULL_THREADS", 0)
