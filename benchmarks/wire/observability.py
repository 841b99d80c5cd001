"""Measure the cost of request ids, times, tokens, byte budget and metrics for small calls.

Servers take turns within each round: one of another checkout, for example from before these
features, and ours without and with `metrics_listen`. h2load sends unary calls of 12.5 KB, 16 in
flight. The processor time of a server is less noisy than its calls per second; it needs Linux.

    python -m benchmarks.wire.observability --before ../checkout
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.wire.load_tools import LOADS, body_of
from benchmarks.wire.servers import Server, pooling_server
from pooling_wire import FORWARD

SIZE, CALLS = "12.5 KB", 3000
LISTEN = "127.0.0.1:0"


@contextlib.contextmanager
def server_of(checkout: Path) -> Iterator[Server]:
    """Start the server of another checkout of this repository."""
    folders = [str(checkout / name) for name in ("", "wire", "server", "client")]
    os.environ["PYTHONPATH"] = os.pathsep.join(folders)
    with pooling_server(listen=LISTEN) as server:
        del os.environ["PYTHONPATH"]
        yield server


def processor_us(server: Server, body: Path, connections: int, streams: int) -> float:
    """Return the microseconds of processor time that a server takes for a call."""
    load = ["h2load", "-n", str(CALLS), "-c", str(connections), "-m", str(streams), "-d", str(body)]
    load += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    before = processor_ns(server.pid)
    url = f"http://{server.addresses[0]}{FORWARD.path}"
    done = subprocess.run([*load, url], capture_output=True, text=True, check=True)
    if f"{CALLS} succeeded" not in done.stdout:
        sys.exit(f"h2load failed: {done.stdout}")
    return (processor_ns(server.pid) - before) / CALLS / 1e3


def processor_ns(pid: int) -> int:
    """Return the nanoseconds for which the threads of a process have run."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(path.read_text().split()[0]) for path in threads)


def measure_all(servers: dict[str, Server], rounds: int) -> list[dict[str, Any]]:
    """Return the processor time per call of each server, and the ratios to the first of them."""
    rows = []
    first, *others = servers
    with body_of(SIZE) as body:
        for load in ("16 on one connection", "16 connections"):

            def measure(name: str) -> float:
                return processor_us(servers[name], body, *LOADS[load])  # noqa: B023

            report.interleaved(list(servers), 1, measure)  # warms up
            taken = report.interleaved(list(servers), rounds, measure)
            row: dict[str, Any] = {"size": SIZE, "load": load}
            row["processor_us"] = {name: report.spread(each) for name, each in taken.items()}
            row["ratios"] = {}
            for name in others:
                ratios = [a / b for a, b in zip(taken[name], taken[first], strict=True)]
                row["ratios"][f"{name} over {first}"] = report.spread(ratios)
            rows.append(row)
            print(row, flush=True)
    return rows


def main() -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, required=True, metavar="CHECKOUT")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--output", type=Path, default=report.RESULTS)
    arguments = parser.parse_args()
    with contextlib.ExitStack() as ends:
        servers = {
            "before": ends.enter_context(server_of(arguments.before.resolve())),
            "without metrics": ends.enter_context(pooling_server(listen=LISTEN)),
        }
        metrics = pooling_server(listen=LISTEN, metrics_listen=LISTEN)
        servers["with metrics"] = ends.enter_context(metrics)
        rows = measure_all(servers, arguments.rounds)
    command = "python -m benchmarks.wire.observability --before CHECKOUT"
    print(f"wrote {report.write('observability', command, rows, arguments.output)}")


if __name__ == "__main__":
    main()
