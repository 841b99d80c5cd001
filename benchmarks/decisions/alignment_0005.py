"""Measure calls with aligned and unaligned tensors, in the engine and over a stream (ADR 5).

The processor time counts, not only the elapsed time, which other processes on the machine disturb.

    python -m benchmarks.decisions.alignment_0005
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks import report
from benchmarks.decisions.streams_0006 import LAYER, UNLIMITED, pooling_server
from pooling_engine import BackwardCall, ForwardCall, PoolSpec, run, set_thread_count
from pooling_wire import FORWARD
from pooling_wire.payloads.tensors import field_start

Array = np.ndarray[Any, Any]
SHAPE = (8, 64, 56, 56)  # 6.4 MB of float32
BASE = 16  # bytes: the alignment of `malloc`, and of everything that encoders could promise
OFFSETS = (BASE, 0, 1, 4, 8)  # of a tensor, from a multiple of 64 bytes
COPIED = "copied"  # unaligned, and copied before the call
CASES = {
    "forward max, 3x3, stride 2": ("forward", PoolSpec("max", 3, 2, 1), "f4"),
    "forward max with indices, 2x2": ("forward", PoolSpec("max", 2), "f4"),
    "forward average, 3x3, stride 2": ("forward", PoolSpec("average", 3, 2, 1), "f4"),
    "forward max, float64": ("forward", PoolSpec("max", 3, 2, 1), "f8"),
    "forward max, float16": ("forward", PoolSpec("max", 3, 2, 1), "f2"),
    "forward max, channels last": ("forward", PoolSpec("max", 3, 2, layout="channels_last"), "f4"),
    "backward max, 3x3, stride 2": ("backward", PoolSpec("max", 3, 2, 1), "f4"),
    "backward max, 2x2": ("backward", PoolSpec("max", 2), "f4"),
    "backward average, 3x3, stride 2": ("backward", PoolSpec("average", 3, 2, 1), "f4"),
    "forward Lp (NumPy)": ("forward", PoolSpec("lp", 3, 2, 1), "f4"),
    "forward max, int32 (NumPy)": ("forward", PoolSpec("max", 3, 2, 1), "i4"),
}
SPEC = PoolSpec("max", kernel=3, stride=2, padding=1)
CHUNK = (1, 64, 112, 112)  # of LAYER
REPLY_BYTES = 64 * 56 * 56 * 4  # of a chunk
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def at_offset(array: Array, offset: int) -> Array:
    """Return a read-only copy that begins `offset` bytes after a multiple of 64."""
    memory = np.empty(array.nbytes + 128, np.uint8)
    begin = -memory.ctypes.data % 64 + offset
    view: Array = np.ndarray(array.shape, array.dtype, memory.data, begin)
    view[...] = array
    view.flags.writeable = False
    return view


def engine_call(name: str, offset: int | str) -> Callable[[], object]:
    """Return a call of the engine with its tensors at an offset."""
    kind, spec, dtype = CASES[name]
    selects = "indices" in name or (kind == "backward" and spec.mode == "max")
    x = (np.random.default_rng(0).standard_normal(SHAPE) * 100).astype(dtype)
    forward = ForwardCall(x, spec, selects)
    result = run(forward)
    if kind == "forward":
        tensors = (x,)
        results = {name: value for name, value in result._asdict().items() if value is not None}
    else:
        tensors = (result.output, result.indices)
        results = {"input_gradient": np.empty_like(x)}
    is_copied = offset == COPIED
    tensors = tuple(
        None if each is None else at_offset(each, 1 if is_copied else int(offset))
        for each in tensors
    )

    def call() -> None:
        given = [None if each is None else each.copy() if is_copied else each for each in tensors]
        if kind == "forward":
            run(ForwardCall(given[0], spec, selects), results)
        else:
            run(BackwardCall(given[0], spec, SHAPE, given[1]), results)

    return call


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Return the elapsed and the processor time of one call, of several for at least 10 ms."""
    calls, start, start_cpu = 0, time.perf_counter(), time.process_time()
    while calls < 3 or time.perf_counter() - start < 0.01:
        call()
        calls += 1
    elapsed, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    return elapsed / calls * 1e3, cpu / calls * 1e3


def engine_rows(rounds: int) -> list[dict[str, Any]]:
    set_thread_count(1)
    rows = []
    for name in CASES:
        calls = {offset: engine_call(name, offset) for offset in (*OFFSETS, COPIED)}
        taken = measure(calls, rounds)
        rows += rows_of(name, taken)
    return rows


def stream_rows(rounds: int) -> list[dict[str, Any]]:
    """Measure a tensor of 103 MB that is sent in chunks, at offsets in the messages."""
    x = np.random.default_rng(0).standard_normal(LAYER, dtype=np.float32)
    with pooling_server() as (address, pid):
        channel = grpc.insecure_channel(address, options=UNLIMITED)
        stream = channel.stream_stream(FORWARD.stream_path)

        def timed_stream(items: list[bytes]) -> tuple[float, float]:
            start, start_cpu = time.perf_counter(), time.process_time() + cpu_s(pid)
            assert all(len(reply) > REPLY_BYTES for reply in stream(iter(items)))
            elapsed = time.perf_counter() - start
            return elapsed * 1e3, (time.process_time() + cpu_s(pid) - start_cpu) * 1e3

        items = {offset: list(chunks(x, offset)) for offset in OFFSETS if offset}
        taken = measure(items, rounds, timed_stream)
        channel.close()
    return rows_of("103 MB through a stream", taken)


def chunks(x: Array, offset: int) -> Iterator[bytes]:
    """Yield the items of a tensor, with elements `offset` bytes after a multiple of 16."""
    for begin in range(0, len(x), CHUNK[0]):
        chunk = x[begin : begin + CHUNK[0]]
        item = FORWARD.encode_item(begin, ForwardCall(chunk, SPEC))
        unknown = field_start(1000, 0)
        missing = (offset - (len(unknown) + len(item) - chunk.nbytes)) % 16
        yield field_start(1000, missing) + bytes(missing) + item


def cpu_s(pid: int) -> float:
    """Return the processor time of a process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def measure(
    subjects: dict[Any, Any], rounds: int, timed: Callable[[Any], tuple[float, float]] = timed
) -> dict[Any, list[tuple[float, float]]]:
    """Measure all subjects in every round, in random order; the first round does not count."""
    taken: dict[Any, list[tuple[float, float]]] = {key: [] for key in subjects}
    for round_ in range(rounds + 1):
        for key in random.sample(list(subjects), len(subjects)):
            value = timed(subjects[key])
            if round_:
                taken[key].append(value)
    return taken


def rows_of(name: str, taken: dict[Any, list[tuple[float, float]]]) -> list[dict[str, Any]]:
    """Return a row for each offset, with its processor time relative to `BASE`."""
    base = statistics.median(cpu for _, cpu in taken[BASE])
    rows = []
    for offset, values in taken.items():
        elapsed, cpu = zip(*values, strict=True)
        row = {
            "call": name,
            "offset": offset,
            "elapsed_ms": report.spread(elapsed),
            "cpu_ms": report.spread(cpu),
            "cpu_to_aligned": round(statistics.median(cpu) / base, 3),
        }
        print(row, flush=True)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--stream-rounds", type=int, default=81)
    options = parser.parse_args()
    rows = engine_rows(options.rounds) + stream_rows(options.stream_rounds)
    command = "python -m benchmarks.decisions.alignment_0005"
    print(f"wrote {report.write('alignment', command, rows, rounds=vars(options))}")


if __name__ == "__main__":
    main()
