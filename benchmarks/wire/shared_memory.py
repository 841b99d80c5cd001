"""Measure what a call in shared memory takes beyond the engine in this process.

Both read the same pages of a leased region and write into the same pages of another, and take turns
call by call, so both find the same data in the caches. The figure is the difference of the two
calls of a pair; the spread is that of the medians of the rounds.

    python -m benchmarks.wire.shared_memory
"""

from __future__ import annotations

import statistics
import sys

import numpy as np

import pooling_engine
from benchmarks import report
from benchmarks.wire import suite
from benchmarks.wire.servers import pooling_server
from benchmarks.wire.transports import Call
from pooling_client import PoolingClient

NAME = "shared-memory"
ROUNDS, PAIRS = 9, 10
ENGINE, STREAM, UNARY = "engine on the same memory", "shared stream", "unary call"
SMALL_STREAM, SMALL_UNARY = "call of 64 bytes, shared stream", "call of 64 bytes, unary"


def contenders(streaming: PoolingClient, unary: PoolingClient) -> tuple[Call, dict[str, Call]]:
    """Return the engine, and the calls to compare with it, all on the same data."""
    spec = suite.LAYER.spec
    x, out = streaming.empty(suite.LAYER.shape), streaming.empty(suite.LAYER.output_shape)
    x[...] = suite.LAYER.tensor()
    other_x, other_out = unary.empty(x.shape), unary.empty(out.shape)
    other_x[...] = x
    tiny, tiny_spec = np.ones((1, 1, 4, 4), np.float32), pooling_engine.PoolSpec("max", 2)
    calls = {
        STREAM: lambda: streaming.forward(x, spec, out=out).output,
        UNARY: lambda: unary.forward(other_x, spec, out=other_out).output,
        SMALL_STREAM: lambda: streaming.forward(tiny, tiny_spec).output,
        SMALL_UNARY: lambda: unary.forward(tiny, tiny_spec).output,
    }
    engines = {
        STREAM: lambda: pooling_engine.forward(x, spec, out=out).output,
        UNARY: lambda: pooling_engine.forward(other_x, spec, out=other_out).output,
    }
    return engines, calls


def measured(engines: dict[str, Call], calls: dict[str, Call]) -> list[dict[str, object]]:
    expected = engines[STREAM]().copy()
    for name in engines:
        if not np.array_equal(calls[name](), expected):
            sys.exit(f"{name}: the result differs from that of the engine in process")
    engine_ms: list[float] = []

    def round_of(name: str) -> tuple[float, float]:
        """Return the medians of the call, and of what it takes beyond the engine before it."""
        taken, over = [], []
        for _ in range(PAIRS):
            before = report.samples(engines[name], 1) if name in engines else [0.0]
            taken += report.samples(calls[name], 1)
            over.append(taken[-1] - before[0])
            engine_ms.extend(before if name in engines else ())
        return statistics.median(taken), statistics.median(over)

    rounds = report.interleaved(list(calls), ROUNDS, round_of)
    rows: list[dict[str, object]] = [
        {"transport": ENGINE, "ms": report.spread(engine_ms)},
    ]
    for name, values in rounds.items():
        row: dict[str, object] = {
            "transport": name,
            "ms": report.spread([ms for ms, _ in values]),
        }
        if name in engines:
            row["over_engine_ms"] = report.spread([over for _, over in values])
        rows.append(row)
    return rows


def main() -> None:
    """Measure, write the result and print it."""
    with pooling_server() as server:
        address = server.addresses[1]
        with (
            PoolingClient(address) as streaming,
            PoolingClient(address, shared_streams=False) as unary,
        ):
            rows = measured(*contenders(streaming, unary))
    for row in rows:
        print(row)
    command = "python -m benchmarks.wire.shared_memory"
    print(f"wrote {report.write(NAME, command, rows)}")


if __name__ == "__main__":
    main()
