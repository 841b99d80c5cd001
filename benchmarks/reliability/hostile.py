"""Hostile and broken peers beside a client whose latencies count."""

from __future__ import annotations

import statistics

import grpc

from benchmarks.reliability.attacking import ATTACKS, attacking
from benchmarks.reliability.load import Neighbour, percentile
from benchmarks.reliability.overload import separate_cores
from benchmarks.reliability.serving import Row, Server, row, serving, settled

REQUIRED = "p99 of other clients at most doubled; none of their calls fails"
_SMALL = ("--max-message-bytes", str(1 << 20))
FLAGS = {
    "gzip bombs": _SMALL,
    "gzip bombs that are rejected": (*_SMALL, "--no-accept-compression"),
}
RATE = 200.0
BEGIN_S = 0.5  # the first connections of an attack are not measured
SLACK = 4  # descriptors that gRPC may open meanwhile


def attacks(seconds: float = 0.8, rounds: int = 3, names: tuple[str, ...] = ()) -> list[Row]:
    """Measure p99 of another client beside each attack.

    The server has one core. The client has the other one, and the attackers what it leaves free.
    """
    rows = []
    with separate_cores() as prefix:
        for name in names or tuple(ATTACKS):
            with serving(*FLAGS.get(name, ()), prefix=prefix) as server:
                rows.append(beside(server, name, seconds, rounds))
    return rows


def beside(server: Server, name: str, seconds: float, rounds: int, count: int = 0) -> Row:
    """Return the row of an attack: p99 of another client with and without it, in turns."""
    alone: list[float] = []
    during: list[float] = []
    failed, steps, closed = 0, 0, 0
    with Neighbour(server.address) as neighbour:
        neighbour.latencies_ms(0.3)
        before, memory = server.descriptors(), server.memory_bytes()
        for _ in range(rounds):
            alone.append(percentile(neighbour.latencies_ms(seconds, RATE), 99))
            with attacking(server.address, name, count) as counts:
                try:
                    neighbour.latencies_ms(min(BEGIN_S, seconds), RATE)
                    during.append(percentile(neighbour.latencies_ms(seconds, RATE), 99))
                except (grpc.RpcError, ValueError):
                    failed += 1
                peak = server.memory_bytes()
            steps += counts.get("steps", 0)
            closed += counts.get("closed", 0)
        left = settled(server.descriptors, before + SLACK, "connections stay open") - before
    ratios = [b / a for a, b in zip(alone, during, strict=False)]
    ratio = statistics.median(ratios) if ratios else 0.0
    text = (
        f"p99 {statistics.median(alone):.1f} ms alone, {statistics.median(during or [0]):.1f} ms "
        f"beside it, ratio {ratio:.2f} ({min(ratios, default=0):.2f} to "
        f"{max(ratios, default=0):.2f}); {failed} failed, {neighbour.rejected} rejected and retried"
    )
    figures = {
        "alone_ms": alone,
        "beside_ms": during,
        "failed": failed,
        "rejected": neighbour.rejected,
        "steps": steps,
        "closed_by_server": closed,
        "descriptors_left": left,
        "memory_growth_mb": round((peak - memory) / 1e6, 1),
    }
    is_met = not failed and 0 < ratio <= 2 and left <= SLACK
    shown = f"{name}: {count or ATTACKS[name][1]:,} connections"
    return row("hostile", shown, REQUIRED, is_met, text, **figures)
