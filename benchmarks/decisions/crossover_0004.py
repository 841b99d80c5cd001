"""Measure the tensor size from which a second thread pays off (ADR 4).

One kernel call, on one thread or in two halves: maximum pooling, float32, windows of 2x2, tensors
of 32 KiB to 4 MiB in cache. The engine divides a call once each thread gets `BYTES_PER_PART`.

    python -m benchmarks.decisions.crossover_0004
"""

from __future__ import annotations

import math
import time
from functools import partial

import numpy as np

from benchmarks import report
from pooling_engine import PoolSpec, set_thread_count
from pooling_engine.backends.numba_backend.dispatch import forward_launch
from pooling_engine.backends.numba_backend.library import Library
from pooling_engine.plans import make_plan
from pooling_engine.runtime.threads import BYTES_PER_PART, run_blocks

PLANE = (28, 28)
ROUNDS = 31


def halves_and_whole(planes: int):
    """Return the call in two halves on two threads, the call on one thread, and its bytes."""
    x = np.random.default_rng(0).standard_normal((1, planes, *PLANE), dtype=np.float32)
    plan = make_plan(PoolSpec("max", 2), x.shape, x.dtype)
    launch, output = forward_launch(plan), np.empty(math.prod(plan.output_shape), np.float32)
    work = partial(Library().find(launch), x.reshape(-1), output, *launch.records)
    tiles = launch.tiles
    runs = [(0, tiles // 2), (tiles // 2, tiles)]
    return partial(run_blocks, lambda run: work(*run), runs), partial(work, 0, tiles), x.nbytes


def microseconds(call) -> float:
    """Return the mean time of twenty calls."""
    start = time.perf_counter()
    for _ in range(20):
        call()
    return (time.perf_counter() - start) * 1e6 / 20


def main() -> None:
    set_thread_count(2)
    rows = []
    for planes in (10, 20, 40, 60, 80, 120, 160, 320, 640, 1280):
        halves, whole, size_bytes = halves_and_whole(planes)
        halves(), whole()
        pairs = [(microseconds(halves), microseconds(whole)) for _ in range(ROUNDS)]
        row = {
            "size_bytes": size_bytes,
            "two_threads_us": report.spread(two for two, _ in pairs),
            "one_thread_us": report.spread(one for _, one in pairs),
            "times_faster": report.spread(one / two for two, one in pairs),
        }
        rows.append(row)
        print(
            f"{size_bytes / 1024:8.0f} KiB  two threads {row['two_threads_us']['median']:8.1f} us  "
            f"one thread {row['one_thread_us']['median']:8.1f} us  "
            f"{row['times_faster']['median']:.2f} times faster"
        )
    path = report.write("crossover", "python -m benchmarks.decisions.crossover_0004", rows)
    print(f"wrote {path}; the engine uses two threads from {2 * BYTES_PER_PART >> 10} KiB")


if __name__ == "__main__":
    main()
