"""Measure the engine on a GPU beside PyTorch and a device copy, and then through the server.

Layers in batches of 32 to 256, five operations, all on the same tensors of the GPU, alternating.
Times are by the GPU's clock; the L2 cache is cleared before each. Writes gpu-<gpu>.json, .md and,
if Matplotlib is installed, .png. Only PyTorch and CuPy are required, and no network.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --only "VGG.* forward max$" --dtype float32 --output /tmp
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks import report
from benchmarks.engine.suite import BACKWARD_MAX, LAYOUTS, Layer
from benchmarks.engine.torch_layers import Call
from benchmarks.gpu import device as gpu_device
from benchmarks.gpu import report as gpu_report
from benchmarks.gpu import suite as gpu_suite
from benchmarks.gpu.contenders import DeviceTensors, answer, contenders
from benchmarks.gpu.device import Device

Row = dict[str, Any]
TOLERANCE = {"float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}  # of results
ROUNDINGS = 8  # gradients get this multiple: some libraries round after every addition
IMAGES = 32  # compared at a time: differences need memory too
CALLS = 100  # consecutive calls with small tensors
SERVING_S = 40  # reserved for the calls through the server


def cases(arguments: argparse.Namespace) -> Iterator[tuple[Layer, str, str, list[str]]]:
    """Yield the selected layers, element types, layouts and operations."""
    wanted = re.compile(arguments.only)
    for dtype in arguments.dtype or gpu_suite.DTYPES:
        for layout in arguments.layout or LAYOUTS:
            for layer in gpu_suite.LAYERS:
                chosen = [
                    each for each in layer.operations if wanted.search(f"{layer.name} {each}")
                ]
                if chosen:
                    yield layer, dtype, layout, chosen


def differing(calls: dict[str, Call], tensors: DeviceTensors, operation: str) -> list[str]:
    """Return the PyTorch contenders that differ; calling every contender also warms it up."""
    limit = TOLERANCE[tensors.dtype.name]
    ours = tensors.y
    if operation.startswith("backward"):
        ours, limit = tensors.dx, limit * ROUNDINGS
    ours.fill_(float("nan"))
    results = {name: call() for name, call in calls.items()}
    tensors.gpu.synchronize()
    others = {name: answer(tensors, results[name]) for name in calls if name.startswith("torch")}
    return [name for name, theirs in others.items() if not is_close(theirs, ours, limit)]


def is_close(theirs: torch.Tensor, ours: torch.Tensor, limit: float) -> bool:
    if theirs.shape != ours.shape:
        return False
    parts = zip(theirs.split(IMAGES), ours.split(IMAGES), strict=True)
    return all(torch.allclose(one.float(), other.float(), limit, limit) for one, other in parts)


def measured_row(tensors: DeviceTensors, operation: str, rounds: int) -> Row:
    """Return one row of the result: milliseconds, ratios, and contenders that differ."""
    device, (calls, unable) = tensors.gpu, contenders(tensors, operation)
    differs = differing(calls, tensors, operation)
    names = list(calls)
    row = {
        "layer": tensors.layer.name,
        "operation": operation,
        "dtype": tensors.dtype.name,
        "layout": tensors.layout,
        "input_bytes": tensors.x.nbytes,
        "moved_bytes": tensors.moved_bytes(operation),
        "kernels": gpu_device.kernels_of(device.backend, calls["ours"]),
        "differs": differs,
        "unable": unable,
    }
    taken = report.interleaved(names, rounds, lambda name: device.kernel_ms(calls[name]))
    row |= compared("times", taken)
    if operation == BACKWARD_MAX:  # the only call that waits for the GPU
        alone = [device.launches_ms(calls["ours"]) for _ in range(rounds)]
        row["kernels_ms"] = report.spread(alone)
    if row["input_bytes"] < gpu_suite.SMALL:
        taken = report.interleaved(names, rounds, lambda name: device.calls_ms(calls[name], CALLS))
        row |= compared("calls", taken)
    return row


def compared(what: str, taken: dict[str, list[float]]) -> Row:
    """Return the milliseconds of all contenders, and our speed-ups within each round."""
    ours = taken["ours"]
    return {
        f"{what}_ms": {name: report.spread(values) for name, values in taken.items()},
        f"{what}_faster": {
            name: report.spread(their / our for their, our in zip(theirs, ours, strict=True))
            for name, theirs in taken.items()
            if name != "ours"
        },
    }


def line_of(row: Row) -> str:
    """Return a row for the terminal."""
    times = row["times_ms"]
    shown = ("ours", "torch", "torch_channels_last", "copy")
    figures = "".join(f"{times[name]['median'] if name in times else '-':>9.5}" for name in shown)
    differs = f"  DIFFERS: {', '.join(row['differs'])}" if row["differs"] else ""
    kind = f"{row['dtype']} {row['layout']}"
    return f"{row['layer']:36} {row['operation']:25} {kind:14}{figures}{differs}"


class Result:
    """Measurements so far; `save` writes them at any time.

    Attributes:
        rows: of the layers.
        serving: of the calls through the server.
        failures: descriptions of measurements that failed.
        left_out: number of rows for which no time was left.
    """

    def __init__(self, device: Device, arguments: argparse.Namespace) -> None:
        facts = device.facts()
        self._name, self._output = f"gpu-{report.slug(facts['name'])}", arguments.output
        self._about = {"device": facts, "rounds": arguments.rounds, "seconds": arguments.seconds}
        self._about["load_before"] = round(os.getloadavg()[0], 2)
        self.rows: list[Row] = []
        self.serving: list[Row] = []
        self.failures: list[str] = []
        self.left_out = 0

    def attempt(self, what: str, measure: Callable[[], list[Row]]) -> list[Row]:
        """Return the result of `measure`; record and print a failure, and continue."""
        try:
            return measure()
        except Exception as error:
            self.failures.append(f"{what}: {type(error).__name__}: {error}")
            print(f"FAILED: {self.failures[-1]}", flush=True)
            return []

    def save(self) -> Path:
        """Write the JSON."""
        flags = sys.argv[1:]
        if "--output" in flags:  # a path of one machine, not part of the measurement
            at = flags.index("--output")
            flags = flags[:at] + flags[at + 2 :]
        command = shlex.join(["python", "-m", "benchmarks.gpu", *flags])
        more = {"left_out": self.left_out, "failures": self.failures, "serving": self.serving}
        return report.write(self._name, command, self.rows, self._output, **self._about, **more)

    def write_tables(self) -> Path:
        """Write the JSON, and from it the tables and the picture."""
        path = self.save()
        self.attempt("tables", lambda: gpu_report.write(path) or [])
        return self.save()  # again, with a failure to write the tables


def measure(device: Device, arguments: argparse.Namespace, result: Result) -> None:
    end = time.monotonic() + arguments.seconds
    for layer, dtype, layout, operations in cases(arguments):
        if time.monotonic() > end - SERVING_S:
            result.left_out += len(operations)
            continue
        name = f"{layer.name} {dtype} {layout}"
        own = device, layer, dtype, layout
        for tensors in result.attempt(name, lambda own=own: [DeviceTensors(*own)]):
            measure_layer(tensors, operations, arguments.rounds, result)
        gc.collect()
        result.save()
    result.write_tables()  # before calls through the server, which may fail
    if not arguments.no_serving:
        rounds = arguments.rounds
        result.serving = result.attempt("through the server", lambda: serving(device, rounds))


def measure_layer(
    tensors: DeviceTensors, operations: list[str], rounds: int, result: Result
) -> None:
    for operation in operations:
        what = f"{tensors.layer.name} {operation} {tensors.dtype.name} {tensors.layout}"
        own = tensors, operation, rounds
        for row in result.attempt(what, lambda own=own: [measured_row(*own)]):
            print(line_of(row), flush=True)
            result.rows.append(row)


def serving(device: Device, rounds: int) -> list[Row]:
    """Measure calls through the server; without gRPC only this part fails."""
    from benchmarks.gpu import serving as gpu_serving

    return gpu_serving.rows(device, rounds)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", default="", help="regular expression to search in `layer operation`"
    )
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--dtype", action="append", choices=gpu_suite.DTYPES)
    parser.add_argument("--layout", action="append", choices=tuple(LAYOUTS))
    parser.add_argument(
        "--seconds", type=float, default=200, help="time limit; remaining rows are skipped"
    )
    parser.add_argument(
        "--no-serving", action="store_true", help="skip the calls through the server"
    )
    parser.add_argument(
        "--output", type=Path, default=report.RESULTS, help="folder of the result files"
    )
    return parser.parse_args()


def main(make_device: Callable[[], Device] = Device) -> int:
    """Measure and write; return exit code 1 if a measurement failed or a result differs."""
    arguments, device = parsed(), make_device()
    result = Result(device, arguments)
    print(f"{'milliseconds':76}     ours    torch     last     copy")
    measure(device, arguments, result)
    path = result.write_tables()
    print(f"wrote {path.name}, its .md" + (" and its .png" if has_matplotlib() else ""))
    differing = [row["layer"] for row in result.rows if row["differs"]]
    return 1 if result.failures or differing or not result.rows else 0


def has_matplotlib() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


if __name__ == "__main__":
    sys.exit(main())
