"""Measure what a second generator process adds, and which processes use the processor.

Against nghttpd, a server in C that sends one stored reply to every call, the generator is the
limit. Against the pooling server, the server and the generators share the cores. The variants of
two processes are ideas for having them disturb each other less.

Every run is a closed loop in fresh processes; all take turns within each round.

    python -m benchmarks.loadtest.scaling

It needs nghttpd, of Debian's package nghttp2-server.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pooling_engine
from benchmarks import report
from benchmarks.loadtest.__main__ import SHAPES, SPEC, tree
from benchmarks.wire.servers import pooling_server
from pooling_client import PoolingClient
from pooling_loadtest import processes
from pooling_loadtest.payloads import payloads_of
from pooling_loadtest.processes import Generators
from pooling_loadtest.settings import KindOfCall, LoadTest
from pooling_wire import FORWARD

CALLERS = 16
SMALLEST = "12.5KB"
STORED, POOLING = "stored reply (nghttpd)", "pooling server"
TICKS = os.sysconf("SC_CLK_TCK")
IMPORTED = "import pooling_loadtest.generator as generator"


@dataclass(frozen=True)
class Setup:
    """Options of a run.

    Attributes:
        processes: number of generator processes.
        connections: number of connections of each process.
        transport: transport of the calls.
        prepare: Python that each generator process runs first.
        server_cores: cores on which the server runs; None for all.
    """

    processes: int = 2
    connections: int = 1
    transport: str = "unary"
    prepare: str = ""
    server_cores: frozenset[int] | None = None


ONE, TWO = "one process", "two processes"
SETUPS = {ONE: Setup(1), TWO: Setup()}
PINNED, CORE_0 = "import os; os.sched_setaffinity(0, {1}); ", frozenset({0})
IDEAS = {
    "one process on core 1, server on core 0": Setup(1, prepare=PINNED, server_cores=CORE_0),
    "two processes on core 1, server on core 0": Setup(prepare=PINNED, server_cores=CORE_0),
    "two processes, each on its own core": Setup(
        prepare="import os; os.sched_setaffinity(0, {os.getpid() % 2}); "
    ),
    "two processes, switch interval 5 ms": Setup(
        prepare=f"{IMPORTED}; generator._SWITCH_S = 5e-3; "
    ),
    "two processes, two connections each": Setup(connections=2),
    "two processes, shared streams": Setup(transport="stream"),
}

COLUMNS = {
    "calls_per_s": "calls/s",
    "over_one_process": "over one process",
    "at_most": "at most",
    "generator_user_us": "generators: user us",
    "generator_system_us": "system us",
    "server_us": "server us",
    "busy_share": "cores busy",
    "others_share": "by others",
}


@contextmanager
def stored_reply(shape: tuple[int, ...]) -> Iterator[tuple[str, int]]:
    """Serve one reply to Forward with nghttpd; yield the address and the process id."""
    program = shutil.which("nghttpd")
    if program is None:
        raise SystemExit("nghttpd is missing; run scripts/debian_packages.sh nghttp2-server")
    (payload, *_) = payloads_of(KindOfCall("max", shape, spec=SPEC), 0)
    reply = FORWARD.encode_response(pooling_engine.run(payload.call))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FORWARD.path.strip("/")
        path.parent.mkdir()
        path.write_bytes(b"\0" + len(reply).to_bytes(4, "big") + reply)
        windows = ("-w", "30", "-W", "30")  # those of a large message
        command = (program, "--no-tls", "-d", folder, "--trailer=grpc-status:0", *windows)
        running = subprocess.Popen((*command, str(port)))
        try:
            time.sleep(0.5)
            yield f"127.0.0.1:{port}", running.pid
        finally:
            running.kill()
            running.wait()


@contextmanager
def warm_pooling_server() -> Iterator[tuple[str, int]]:
    """Serve with compiled kernels; yield the address and the process id."""
    with pooling_server() as server, PoolingClient(server.addresses[0]) as client:
        while "numba" not in {backend.name for backend in client.info().backends}:
            time.sleep(0.1)
        yield server.addresses[0], server.pid


def measure(
    address: str, server: int, shape: tuple[int, ...], setup: Setup, seconds: float
) -> dict[str, float]:
    """Return calls/s, processor times per call in us, and the busy share of the machine."""
    kind = KindOfCall("max", shape, spec=SPEC, transport=setup.transport)
    test = LoadTest(
        title="scaling",
        targets=(address,),
        kinds=(kind,),
        schedule=None,
        callers=CALLERS,
        duration_s=seconds,
        processes=setup.processes,
        connections=setup.connections,
    )
    usual, processes._MAIN = processes._MAIN, setup.prepare + processes._MAIN
    known = set(tree(os.getpid()))
    _pin(server, setup.server_cores or frozenset(os.sched_getaffinity(0)))
    try:
        with Generators(test) as generators:
            ours = sorted(set(tree(os.getpid())) - known)
            before = _times(ours), _times([server]), _machine()
            calls = generators.run(None, lambda now_s, states: None).calls
            after = _times(ours), _times([server]), _machine()
    finally:
        processes._MAIN = usual
        _pin(server, frozenset(os.sched_getaffinity(0)))
    generator, served, machine = (
        [end - start for start, end in zip(*pair, strict=True)]
        for pair in zip(before, after, strict=True)
    )
    answered = int(calls.is_ok.sum())
    others_s = machine[0] - sum(generator) - sum(served)
    return {
        "calls_per_s": answered / (float(calls.done_ns.max()) / 1e9),
        "generator_user_us": 1e6 * generator[0] / answered,
        "generator_system_us": 1e6 * generator[1] / answered,
        "server_us": 1e6 * sum(served) / answered,
        "cpu_us": 1e6 * (sum(generator) + sum(served)) / answered,
        "busy_share": machine[0] / sum(machine),
        "others_share": max(0.0, others_s) / sum(machine),
    }


def rows_of(payload: str, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Return a row for each server and setup."""
    rows, shape = [], SHAPES[payload]
    for name, serve in ((STORED, lambda: stored_reply(shape)), (POOLING, warm_pooling_server)):
        setups = SETUPS | IDEAS if name == POOLING and payload == SMALLEST else SETUPS
        with serve() as at:

            def run(each: str, at: Any = at, setups: dict[str, Setup] = setups) -> dict[str, float]:
                return measure(*at, shape, setups[each], seconds)

            taken = report.interleaved(list(setups), rounds, run)
        for each, values in taken.items():
            ratios = (
                value["calls_per_s"] / one["calls_per_s"]
                for value, one in zip(values, taken[ONE], strict=True)
            )
            most = (
                os.cpu_count() / (value["cpu_us"] / 1e6) / one["calls_per_s"]
                for value, one in zip(values, taken[ONE], strict=True)
            )
            spreads = {key: report.spread(value[key] for value in values) for key in values[0]}
            rows.append(
                {"payload": payload, "server": name, "generators": each}
                | {"over_one_process": report.spread(ratios), "at_most": report.spread(most)}
                | spreads
            )
    return rows


def _pin(server: int, cores: frozenset[int]) -> None:
    """Let all threads of a process run on some cores only."""
    for pid in tree(server):
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), cores)


def _times(pids: list[int]) -> list[float]:
    """Return the seconds that processes and their children have spent in user and system mode."""
    found = [0.0, 0.0]
    for pid in {each for parent in pids for each in tree(parent)}:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        for n in range(2):
            found[n] += int(fields[11 + n]) / TICKS
    return found


def _machine() -> list[float]:
    """Return the seconds in which the cores were busy and idle."""
    line = Path("/proc/stat").read_text().split("\n")[0]
    values = [int(each) / TICKS for each in line.split()[1:]]
    idle = values[3] + values[4]
    return [sum(values[:8]) - idle, idle]


def main() -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--payload", choices=SHAPES, action="append")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--output", type=Path, default=report.RESULTS)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for payload in arguments.payload or SHAPES:
        rows += rows_of(payload, arguments.rounds, arguments.seconds)
    head = ["payload and server", "generators", *COLUMNS.values()]
    lines = [
        [f"{row['payload']}, {row['server']}", row["generators"]]
        + [report.cell(row[key]) for key in COLUMNS]
        for row in rows
    ]
    print(report.table(head, lines, "---:"))
    payloads = "".join(f" --payload {each}" for each in arguments.payload or ())
    command = f"python -m benchmarks.loadtest.scaling{payloads}"
    command += f" --rounds {arguments.rounds} --seconds {arguments.seconds:g}"
    more = {"rounds": arguments.rounds, "seconds": arguments.seconds}
    print(report.write("loadtest-scaling", command, rows, arguments.output, **more))


if __name__ == "__main__":
    main()
