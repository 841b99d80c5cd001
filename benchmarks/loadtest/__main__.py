"""Compare the load generator with bare loops of a client, and measure its memory.

Every loop is a separate process; all take turns within each round. Writes loadtest-PAYLOAD.json.

    python -m benchmarks.loadtest --payload 12.5KB
    python -m benchmarks.loadtest --memory
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.wire.servers import pooling_server
from pooling_client import PoolingClient
from pooling_loadtest.results import read
from pooling_loadtest.running import run_test
from pooling_loadtest.settings import KindOfCall, LoadTest

SHAPES = {"12.5KB": (1, 16, 14, 14), "125KB": (1, 10, 56, 56)}
SPEC = {"mode": "max", "kernel": 3, "stride": 2, "padding": 1}
CALLERS = (1, 16)
FUTURES, CLIENT = "gRPC's futures, no generator", "PoolingClient in threads, no generator"
GOAL = 0.8
MILLION, MEMORY_GOAL_MB = 1_000_000, 300


Figures = tuple[float, float]  # calls/s, processor time of the client per call in us


def bare(kind: str, address: str, shape: tuple[int, ...], callers: int, seconds: float) -> Figures:
    sizes = ",".join(map(str, shape))
    command = [sys.executable, "-m", "benchmarks.loadtest.bare", kind, address, sizes]
    command += [str(callers), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rate, cpu_us = map(float, done.stdout.split())
    return rate, cpu_us


def generator(
    address: str,
    shape: tuple[int, ...],
    callers: int,
    seconds: float,
    processes: int = 1,
    transport: str = "unary",
) -> Figures:
    """Return the figures of the closed loop."""
    kind = KindOfCall("max", shape, spec=SPEC, transport=transport)
    test = LoadTest(
        title="benchmark",
        targets=(address,),
        kinds=(kind,),
        schedule=None,
        callers=callers,
        duration_s=seconds,
        processes=processes,
    )
    results = run_test(test)
    answered, elapsed_s = float(results.calls.is_ok.sum()), results.run.elapsed_s
    return answered / elapsed_s, sum(results.run.generator_cpu) * elapsed_s / answered * 1e6


def measure(address: str, payload: str, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Return a row for each number of callers and each loop."""
    shape, rows = SHAPES[payload], []
    for callers in CALLERS:
        at = (address, shape, callers, seconds)
        loops: dict[str, Callable[[], Figures]] = {
            FUTURES: lambda at=at: bare("futures", *at),
            CLIENT: lambda at=at: bare("client", *at),
            "generator": lambda at=at: generator(*at),
            "generator, shared stream": lambda at=at: generator(*at, transport="stream"),
        }
        if callers > 1:
            loops["generator, two processes"] = lambda at=at: generator(*at, processes=2)
        taken = report.interleaved(list(loops), rounds, lambda name, all_=loops: all_[name]())
        for name, values in taken.items():
            pairs = list(zip(values, taken[FUTURES], strict=True))
            rows.append(
                {
                    "payload": payload,
                    "callers": callers,
                    "loop": name,
                    "calls_per_s": report.spread(value[0] for value in values),
                    "relative": report.spread(value[0] / base[0] for value, base in pairs),
                    "goal": GOAL if name == "generator" else None,
                    "client_cpu_us_per_call": report.spread(value[1] for value in values),
                    "relative_cpu": report.spread(value[1] / base[1] for value, base in pairs),
                }
            )
    return rows


def memory(address: str) -> list[dict[str, Any]]:
    """Return the peak memory of a load test of a million calls: of all processes at one moment."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pooling_cli.main", "loadtest", address]
        command += ["--rate", str(MILLION), "--duration", "1", "--schedule", "constant"]
        command += ["--max-in-flight", "32", "--transport", "stream", "--output", folder]
        command += ["--shape", "1,1,4,4", "--kernel", "2", "--timeout", "600"]
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        peaks: dict[int, int] = {}
        total = 0
        while running.poll() is None:
            now = {pid: resident_kb(pid) for pid in tree(running.pid)}
            peaks = {pid: max(peaks.get(pid, 0), now.get(pid, 0)) for pid in peaks | now}
            total = max(total, sum(now.values()))
            time.sleep(0.02)
        calls = read(Path(folder)).calls
    row = {
        "calls": len(calls),
        "answered": int(calls.is_ok.sum()),
        "processes_mb": [round(kb / 1024) for kb in peaks.values()],
        "total_mb": round(total / 1024),
        "goal_mb": MEMORY_GOAL_MB,
    }
    return [row]


def tree(pid: int) -> list[int]:
    """Return a process and its descendants."""
    found = [pid]
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += tree(int(child))
    except OSError:
        pass  # it has ended
    return found


def resident_kb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)


def main() -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--payload", choices=SHAPES, default="12.5KB")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--output", type=Path, default=report.RESULTS)
    arguments = parser.parse_args()
    with pooling_server() as server:
        address = server.addresses[0]
        with PoolingClient(address) as client:
            while "numba" not in {backend.name for backend in client.info().backends}:
                time.sleep(0.1)
        command = "python -m benchmarks.loadtest"
        if arguments.memory:
            rows, name = memory(address), "loadtest-memory"
            command += " --memory"
        else:
            payload = arguments.payload
            rows = measure(address, payload, arguments.rounds, arguments.seconds)
            name = f"loadtest-{payload}"
            command += f" --payload {payload} --rounds {arguments.rounds}"
            command += f" --seconds {arguments.seconds:g}"
    for row in rows:
        print(*row.values(), sep=" | ")
    report.write(name, command, rows, arguments.output)


if __name__ == "__main__":
    main()
