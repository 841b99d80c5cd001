"""Time the engine and the wire of two checkouts in turns, and report the ratio of each row.

Each checkout runs in a process with its own Python; the two take turns within every round, and a
ratio is taken within a round. The comparison is repeated with new processes, because the placement
of memory makes one process faster than another. Both use the public API alone, so the checkouts may
differ inside.

    python -m benchmarks.compare ../base/.venv/bin/python
    python -m benchmarks.compare ../base/.venv/bin/python --only wire --processes 5
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.engine.suite import DTYPES, LAYERS, LAYOUTS, mode_of
from benchmarks.wire.suite import PAYLOADS

WORKER = Path(__file__).with_name("worker.py")
WIRE_WAYS = ("unary", "unary at 16", "shared memory", "many")
SMALL_BYTES, SHARED_BYTES = 1 << 20, 256 << 10
TOLERANCE = 1.05


class Worker:
    """A process of one checkout that times the cases that it is sent."""

    def __init__(self, python: str) -> None:
        self._process = subprocess.Popen(
            [python, "-P", str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, request: dict[str, Any]) -> Any:
        """Send one request and return the reply."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End the process and wait for it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def engine_cases() -> Iterator[dict[str, Any]]:
    """Yield every row of the engine benchmark as a request."""
    for dtype in DTYPES:
        for layout, name in LAYOUTS.items():
            for layer in LAYERS:
                for operation in layer.operations:
                    yield {
                        "kind": "engine",
                        "row": f"{operation}, {layer.name}, {dtype} {layout}",
                        "shape": layer.shape,
                        "spec": {"mode": mode_of(operation), "layout": name} | layer.options(),
                        "dtype": dtype,
                        "operation": operation,
                    }


def wire_cases() -> Iterator[dict[str, Any]]:
    """Yield unary calls, streams, shared memory and many calls, for the sizes that fit."""
    for payload in PAYLOADS:
        for way in WIRE_WAYS:
            is_small = payload.request_bytes <= SMALL_BYTES
            if (way in ("unary at 16", "many") and not is_small) or (
                way == "shared memory" and payload.request_bytes < SHARED_BYTES
            ):
                continue
            yield {
                "kind": "wire",
                "row": f"{way}, {payload.name}",
                "way": way,
                "shape": payload.shape,
                "spec": {"mode": "max", "kernel": 3, "stride": 2, "padding": payload.padding},
                "calls": payload.calls,
            }


def compare(base: Worker, ours: Worker, case: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Return the median times of both checkouts, and the median ratio within a round."""
    for worker in (base, ours):
        worker.ask({"do": "prepare"} | case)
    workers = {"base": base, "ours": ours}
    taken = report.interleaved(
        list(workers), rounds, lambda name: workers[name].ask({"do": "time"})
    )
    ratios = [ours / base for base, ours in zip(taken["base"], taken["ours"], strict=True)]
    medians = {f"{name}_ms": statistics.median(values) for name, values in taken.items()}
    return medians | {"ratio": statistics.median(ratios)}


def compare_all(
    pythons: tuple[str, str], cases: list[dict[str, Any]], rounds: int
) -> list[dict[str, Any]]:
    """Compare every case in one new pair of processes."""
    with contextlib.ExitStack() as ends:
        workers = [Worker(python) for python in pythons]
        for worker in workers:
            ends.callback(worker.close)
        return [compare(*workers, case, rounds) for case in cases]


def combine(case: dict[str, Any], pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one row: the spreads over all pairs of processes."""
    columns = ("base_ms", "ours_ms", "ratio")
    return {"row": case["row"]} | {
        name: report.spread(pair[name] for pair in pairs) for name in columns
    }


def main() -> None:
    """Compare, print a line per row, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", help="the Python of the other checkout")
    parser.add_argument("--only", default="", help="regular expression of rows")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each pair of processes")
    parser.add_argument("--processes", type=int, default=3, help="pairs of processes")
    parser.add_argument("--name", default="compare", help="name of the result file")
    parser.add_argument("--output", type=Path, default=report.RESULTS)
    arguments = parser.parse_args()
    cases = [
        case
        for case in (*engine_cases(), *wire_cases())
        if re.search(arguments.only, f"{case['kind']} {case['row']}")
    ]
    pythons = arguments.base, sys.executable
    pairs = [compare_all(pythons, cases, arguments.rounds) for _ in range(arguments.processes)]
    rows = [combine(case, each) for case, *each in zip(cases, *pairs, strict=True)]
    for row in rows:
        print("{median:.3f} ({min:.3f} to {max:.3f})".format(**row["ratio"]), row["row"])
    slower = [row for row in rows if row["ratio"]["median"] > TOLERANCE]
    mean = statistics.geometric_mean(row["ratio"]["median"] for row in rows)
    print(f"{len(rows)} rows, geometric mean {mean:.3f}; slower by more than 5 %: {len(slower)}")
    command = shlex.join(["python", "-m", "benchmarks.compare", "BASE", *sys.argv[2:]])
    path = report.write(arguments.name, command, rows, arguments.output, geometric_mean=mean)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
