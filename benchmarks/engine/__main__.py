"""Measure the engine beside PyTorch, ONNX Runtime and the memory-bandwidth floor, in one process.

Layers of well-known networks, five operations, two element types and layouts, all on the same
number of threads. Contenders alternate. A figure is the median of the rounds; a ratio is taken
within a round, which cancels slow drift of the machine. Writes engine-cpu.json, .md and .png.

    python -m benchmarks.engine
    python -m benchmarks.engine --only "VGG.* forward max$" --dtype float32 --output /tmp
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import shlex
import statistics
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pooling_engine
from benchmarks import report
from benchmarks.engine import report as engine_report
from benchmarks.engine.contenders import Call, answer, contenders
from benchmarks.engine.model_layers import MODEL_LAYERS
from benchmarks.engine.suite import DTYPES, LAYERS, LAYOUTS, Layer, Tensors

NAME = "engine-cpu"
SAMPLE_S = 0.02  # shorter calls are repeated within a sample
SETTLE_S = 0.01  # idle threads of PyTorch and ONNX Runtime keep spinning for about this long
SLOW_S, FEW_ROUNDS = 0.3, 3  # slower calls, and the NumPy backend, get few rounds
TOLERANCE = {"float32": 1e-5, "float16": 4e-3}  # of results: a float16 has 11 bits
ROUNDINGS = 8  # gradients get this multiple: some libraries round after every addition


def cases(arguments: argparse.Namespace) -> Iterator[tuple[Layer, str, str, list[str]]]:
    """Yield the selected layers, element types, layouts and operations."""
    wanted = re.compile(arguments.only)
    kinds = list(product(arguments.dtype or DTYPES, arguments.layout or LAYOUTS))
    for layer in (*LAYERS, *MODEL_LAYERS):
        chosen = [each for each in layer.operations if wanted.search(f"{layer.name} {each}")]
        for dtype, layout in kinds:
            if chosen and (layer in LAYERS or (dtype, layout) == ("float32", "NCHW")):
                yield layer, dtype, layout, chosen


def differing(calls: dict[str, Call], tensors: Tensors) -> list[str]:
    """Return the contenders whose result differs from ours.

    Of gradients only the first and the last image are compared. Calling every contender also
    compiles kernels and warms caches.
    """
    calls["floor"]()
    ours = answer(calls["ours"](), tensors.layout)
    is_gradient, limit = ours is tensors.dx, TOLERANCE[tensors.dtype.name]
    images, limit = ([0, -1], limit * ROUNDINGS) if is_gradient else (slice(None), limit)
    expected = ours[images].astype(np.float32)
    others = [name for name in calls if name not in ("ours", "floor")]
    given = ((name, answer(calls[name](), tensors.layout)) for name in others)
    return [
        name
        for name, array in given
        if array.shape != ours.shape
        or not np.allclose(
            array[images].astype(np.float32), expected, rtol=limit, atol=limit, equal_nan=True
        )
    ]


def sample(call: Call, repeats: int) -> float:
    """Return the milliseconds of a call, the mean of several repeats."""
    if repeats > 1:
        call()  # wake the threads
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) * 1e3 / repeats


def settle(name: str) -> None:
    """Wait until the threads of another library stop spinning."""
    if name.startswith(("torch", "onnxruntime")):
        time.sleep(SETTLE_S)


def sizes(name: str, call: Call, rounds: int) -> tuple[int, int]:
    """Return the number of calls per sample and the number of rounds of a contender."""
    once_ms = sample(call, 1)
    if once_ms < SAMPLE_S * 1e2:
        once_ms = sample(call, 10)
    settle(name)
    is_slow = once_ms > SLOW_S * 1e3 or name == "numpy"
    return max(1, int(SAMPLE_S * 1e3 / once_ms)), min(rounds, FEW_ROUNDS if is_slow else rounds)


def measure(calls: dict[str, Call], rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of each call in every round; the order alternates."""
    plan = {name: sizes(name, call, rounds) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(rounds):
        for name in list(calls) if round_ % 2 else reversed(calls):
            repeats, its_rounds = plan[name]
            if round_ < its_rounds:
                samples[name].append(sample(calls[name], repeats))
                settle(name)
    return samples


def with_faster_onnxruntime(samples: dict[str, list[float]]) -> dict[str, list[float]]:
    """Add the samples of ONNX Runtime's faster call."""
    variants = [samples[name] for name in samples if name.startswith("onnxruntime")]
    return samples | ({"onnxruntime": min(variants, key=statistics.median)} if variants else {})


def measured_row(tensors: Tensors, operation: str, rounds: int) -> dict[str, Any]:
    """Return one row of the result: milliseconds, ratios, and contenders that differ."""
    calls = contenders(tensors, operation)
    differs = differing(calls, tensors)
    samples = with_faster_onnxruntime(measure(calls, rounds))
    ours = samples["ours"]
    return {
        "layer": tensors.layer.name,
        "operation": operation,
        "dtype": tensors.dtype.name,
        "layout": tensors.layout,
        "input_bytes": tensors.x.nbytes,
        "output_bytes": tensors.dy.nbytes,
        "times_ms": {name: report.spread(values) for name, values in samples.items()},
        "times_faster": {
            name: report.spread(their / our for their, our in zip(theirs, ours, strict=False))
            for name, theirs in samples.items()
            if name not in ("ours", "floor")
        },
        "over_floor": report.spread(
            our / floor for our, floor in zip(ours, samples["floor"], strict=False)
        ),
        "differs": differs,
    }


def line_of(row: dict[str, Any]) -> str:
    """Return a row for the terminal."""
    times = row["times_ms"]
    shown = ("ours", "torch", "torch_channels_last", "onnxruntime", "floor")
    figures = "".join(f"{times[name]['median'] if name in times else '-':>9.5}" for name in shown)
    differs = f"  DIFFERS: {', '.join(row['differs'])}" if row["differs"] else ""
    kind = f"{row['dtype']} {row['layout']}"
    return f"{row['layer']:50} {row['operation']:25} {kind:13}{figures}{differs}"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", default="", help="regular expression to search in `layer operation`"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", action="append", choices=DTYPES)
    parser.add_argument("--layout", action="append", choices=tuple(LAYOUTS))
    parser.add_argument("--threads", type=int, default=pooling_engine.thread_count())
    parser.add_argument(
        "--output", type=Path, default=report.RESULTS, help="folder of the result files"
    )
    return parser.parse_args()


def main() -> None:
    arguments, load = parsed(), round(os.getloadavg()[0], 2)
    torch.set_num_threads(arguments.threads)
    pooling_engine.set_thread_count(arguments.threads)
    print(f"{'milliseconds':89}     ours    torch     last     onnx    floor")
    rows = []
    for layer, dtype, layout, operations in cases(arguments):
        tensors = Tensors(layer, dtype, layout)
        for operation in operations:
            rows.append(measured_row(tensors, operation, arguments.rounds))
            print(line_of(rows[-1]), flush=True)
        del tensors
        gc.collect()  # free large tensors before the next layer
    if not rows:
        sys.exit("--only matches no layer and operation")
    command = shlex.join(["python", "-m", "benchmarks.engine", *sys.argv[1:]])
    about = {"threads": arguments.threads, "load_before": load}
    path = report.write(NAME, command, rows, arguments.output, **about)
    engine_report.write(path)
    print(f"wrote {path}, its .md and its .png")


if __name__ == "__main__":
    main()
