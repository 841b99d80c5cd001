"""The NumPy backend against PyTorch, in one process, taking turns.

Four layers, five operations, float32, both on the same number of threads, both allocating
their results. Each figure is the median of the rounds; the ratio is taken round by round, so
that the machine's drift cancels.

    python benchmarks/bench_engine.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import report
import torch
from torch.nn import functional

import pooling_engine
from pooling_engine import PoolSpec

LAYERS = {
    "10x16x14x14 k3 s2": ((10, 16, 14, 14), 3, 2, 0),
    "32x64x112x112 k3 s2 p1": ((32, 64, 112, 112), 3, 2, 1),
    "32x64x56x56 k2 s2": ((32, 64, 56, 56), 2, 2, 0),
    "8x256x28x28 k2 s2": ((8, 256, 28, 28), 2, 2, 0),
}
SAMPLE_S = 0.02  # calls shorter than this are repeated within a sample
Pair = tuple[Callable[[], Any], Callable[[], Any]]


def operations(shape: tuple[int, ...], k: int, s: int, p: int) -> dict[str, Pair]:
    """Each operation as (ours, PyTorch's) on the same data."""
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    maximum, average = PoolSpec("max", k, s, p), PoolSpec("average", k, s, p)
    result = pooling_engine.forward(x, maximum, return_indices=True)
    dy = np.random.default_rng(1).standard_normal(result.output.shape, dtype=np.float32)

    tx, tdy = torch.from_numpy(x), torch.from_numpy(dy)
    leaf = tx.clone().requires_grad_()
    max_output = functional.max_pool2d(leaf, k, s, p)
    average_output = functional.avg_pool2d(leaf, k, s, p)

    def their_gradient(output: torch.Tensor) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(output, leaf, tdy, retain_graph=True)

    def our_max_gradient() -> Any:
        return pooling_engine.backward(dy, maximum, input_shape=x.shape, indices=result.indices)

    return {
        "forward max": (
            lambda: pooling_engine.forward(x, maximum),
            lambda: functional.max_pool2d(tx, k, s, p),
        ),
        "forward average": (
            lambda: pooling_engine.forward(x, average),
            lambda: functional.avg_pool2d(tx, k, s, p),
        ),
        "forward max with indices": (
            lambda: pooling_engine.forward(x, maximum, return_indices=True),
            lambda: functional.max_pool2d(tx, k, s, p, return_indices=True),
        ),
        "backward max": (our_max_gradient, their_gradient(max_output)),
        "backward average": (
            lambda: pooling_engine.backward(dy, average, input_shape=x.shape),
            their_gradient(average_output),
        ),
    }


def measure(pair: Pair, rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each in every round, the order changing from round to round."""
    repeats = []
    for call in pair:
        call()
        start = time.perf_counter()
        call()
        repeats.append(max(1, int(SAMPLE_S / (time.perf_counter() - start))))
    samples: tuple[list[float], list[float]] = ([], [])
    for round_ in range(rounds):
        for which in (0, 1) if round_ % 2 else (1, 0):
            start = time.perf_counter()
            for _ in range(repeats[which]):
                pair[which]()
            samples[which].append((time.perf_counter() - start) * 1e3 / repeats[which])
    return samples


def markdown(rows: list[dict[str, Any]], machine: dict[str, Any]) -> str:
    """The rows as a table, for reading."""
    versions = machine["versions"]
    lines = [
        f"NumPy backend against PyTorch {versions['torch']}, both on {machine['cores']} threads; "
        f"{machine['cpu']}, Python {machine['python']}, NumPy {versions['numpy']}. Median of the "
        "rounds, smallest and largest in brackets; milliseconds.",
        "",
        "| layer | operation | ours | PyTorch | times faster |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for row in rows:
        cells = [
            "{median:.3g} ({min:.3g}-{max:.3g})".format(**row[key])
            for key in ("ours_ms", "torch_ms", "times_faster")
        ]
        lines.append(f"| {row['layer']} | {row['operation']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=pooling_engine.thread_count())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pooling_engine.set_thread_count(arguments.threads)

    rows = []
    for layer, parameters in LAYERS.items():
        for operation, pair in operations(*parameters).items():
            ours, theirs = measure(pair, arguments.rounds)
            ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
            row = {
                "layer": layer,
                "operation": operation,
                "ours_ms": report.spread(ours),
                "torch_ms": report.spread(theirs),
                "times_faster": report.spread(ratios),
            }
            print(
                f"{layer:24} {operation:26} {row['ours_ms']['median']:9.3f} ms "
                f"{row['torch_ms']['median']:9.3f} ms  {row['times_faster']['median']:6.2f}x",
                flush=True,
            )
            rows.append(row)
    path = report.write("engine-numpy", "python benchmarks/bench_engine.py", rows)
    path.with_suffix(".md").write_text(markdown(rows, report.machine()))
    print(f"wrote {path} and {path.with_suffix('.md')}")


if __name__ == "__main__":
    main()
