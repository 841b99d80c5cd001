"""Measure the engine beside PyTorch, ONNX Runtime and the memory-bandwidth floor, in one process.

Layers of well-known networks, five operations, two element types and layouts; layers and whole
models with a batch of one, special data or bytes; all on the same number of threads. Element types
and layouts other than float32, channels first, get fewer rounds. Contenders alternate. A figure is
the median of the rounds; a ratio is taken within a round, which cancels slow drift of the machine.
Writes engine-cpu.json, .md and .png.

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
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pooling_engine
from benchmarks import report
from benchmarks.engine import report as engine_report
from benchmarks.engine.contenders import Call, answer, contenders, model_contenders
from benchmarks.engine.model_layers import BYTE_LAYERS, MODEL_LAYERS, MODELS, Model
from benchmarks.engine.suite import (
    BYTES,
    DTYPES,
    LAYERS,
    LAYOUTS,
    MODEL_POOLS,
    Layer,
    Tensors,
)

NAME = "engine-cpu"
SAMPLE_S = 0.02  # shorter calls are repeated within a sample
SETTLE_S = 0.01  # idle threads of PyTorch and ONNX Runtime keep spinning for about this long
SLOW_S, FEW_ROUNDS = 0.3, 3  # slower calls, and the NumPy backend, get few rounds
MAIN_KIND = "float32", "NCHW"
# Of results: a float16 has 11 bits, and ONNX Runtime rounds averages of bytes to bytes.
TOLERANCE = {"float32": 1e-5, "float16": 4e-3, BYTES: 0.51}
ROUNDINGS = 8  # gradients get this multiple: some libraries round after every addition


def cases(arguments: argparse.Namespace) -> Iterator[tuple[Layer, str, str, list[str]]]:
    """Yield the selected layers, element types, layouts and operations."""
    wanted = re.compile(arguments.only)
    dtypes, layouts = arguments.dtype or (*DTYPES, BYTES), arguments.layout or LAYOUTS
    groups = [(layer, dtype, LAYOUTS) for dtype in DTYPES for layer in LAYERS]
    groups += [(layer, "float32", ["NCHW"]) for layer in MODEL_LAYERS]
    groups += [(layer, BYTES, ["NCHW"]) for layer in BYTE_LAYERS]
    for layer, dtype, its_layouts in groups:
        chosen = [each for each in layer.operations if wanted.search(f"{layer.name} {each}")]
        for layout in its_layouts:
            if chosen and dtype in dtypes and layout in layouts:
                yield layer, dtype, layout, chosen


def selected_models(arguments: argparse.Namespace) -> list[Model]:
    """Return the selected models; they are float32, channels first."""
    dtype, layout = MAIN_KIND
    if dtype not in (arguments.dtype or (dtype,)) or layout not in (arguments.layout or (layout,)):
        return []
    return [model for model in MODELS if re.search(arguments.only, f"{model.name} {MODEL_POOLS}")]


def differing(calls: dict[str, Call], tensors: Tensors) -> list[str]:
    """Return the contenders whose result differs from ours.

    Only the first and the last image are compared. Calling every contender also compiles kernels
    and warms caches.
    """
    calls["floor"]()
    ours = answer(calls["ours"](), tensors.layout)
    is_gradient, limit = ours is tensors.dx, TOLERANCE[tensors.dtype.name]
    images, limit = [0, -1], limit * (ROUNDINGS if is_gradient else 1)
    expected = ours[images].astype(np.float32)
    others = [name for name in calls if name not in ("ours", "floor", "related")]
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
    related = tensors.layer.related()
    about = {
        "layer": tensors.layer.name,
        "operation": operation,
        "dtype": tensors.dtype.name,
        "layout": tensors.layout,
        "input_bytes": tensors.x.nbytes,
        "output_bytes": tensors.y.nbytes,
        "differs": differing(calls, tensors),
    } | ({"related": related.name} if related else {})
    is_main = (tensors.dtype.name, tensors.layout) == MAIN_KIND
    return about | times_of(calls, rounds if is_main else min(rounds, FEW_ROUNDS))


def model_row(model: Model, rounds: int) -> dict[str, Any]:
    """Return the row of all pools of a model."""
    pools = [(Tensors(layer, *MAIN_KIND), layer.operations[0]) for layer in model.pools]
    different = [differing(contenders(*pool), pool[0]) for pool in pools]
    about = {
        "layer": model.name,
        "operation": MODEL_POOLS,
        "dtype": MAIN_KIND[0],
        "layout": MAIN_KIND[1],
        "input_bytes": sum(tensors.x.nbytes for tensors, _ in pools),
        "output_bytes": sum(tensors.y.nbytes for tensors, _ in pools),
        "differs": sorted(set().union(*different)),
    }
    return about | times_of(model_contenders(pools), rounds)


def times_of(calls: dict[str, Call], rounds: int) -> dict[str, Any]:
    """Return the milliseconds of each call, and the ratios to ours within a round."""
    samples = with_faster_onnxruntime(measure(calls, rounds))
    ours = samples["ours"]
    related = {"over_related": _over(ours, samples["related"])} if "related" in samples else {}
    return {
        "times_ms": {name: report.spread(values) for name, values in samples.items()},
        "times_faster": {
            name: _over(theirs, ours)
            for name, theirs in samples.items()
            if name not in ("ours", "floor", "related")
        },
        "over_floor": _over(ours, samples["floor"]),
    } | related


def _over(times: list[float], others: list[float]) -> dict[str, float]:
    return report.spread(time / other for time, other in zip(times, others, strict=False))


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
    parser.add_argument("--dtype", action="append", choices=(*DTYPES, BYTES))
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
    for model in selected_models(arguments):
        rows.append(model_row(model, arguments.rounds))
        print(line_of(rows[-1]), flush=True)
    if not rows:
        sys.exit("--only matches no layer and operation")
    command = shlex.join(["python", "-m", "benchmarks.engine", *sys.argv[1:]])
    about = {"threads": arguments.threads, "load_before": load}
    path = report.write(NAME, command, rows, arguments.output, **about)
    engine_report.write(path)
    print(f"wrote {path}, its .md and its .png")


if __name__ == "__main__":
    main()
