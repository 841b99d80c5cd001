"""Through the server on one host, beside PyTorch moving the same tensors by pinned copies."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks import report
from benchmarks.gpu.card import Card
from benchmarks.gpu.goals import LINK, TORCH_PINNED
from benchmarks.wire import servers as wire_servers
from benchmarks.wire import suite, transports
from benchmarks.wire.suite import Payload
from benchmarks.wire.transports import Call
from pooling_client import PoolingClient

Row = dict[str, Any]
PAYLOADS = tuple(each for each in suite.PAYLOADS if each.name in ("12 KB", "12 MB", "103 MB"))


def rows(card: Card, rounds: int) -> list[Row]:
    """A row for each payload and way: milliseconds of the rounds.

    Raises:
        ArithmeticError: some way gives another answer than PyTorch.
    """
    measured = []
    # Not warmed up, it lets first calls wait for kernels; else NumPy would compute some of ours.
    with wire_servers.pooling_server(backend=card.backend, warm_up=False) as server:
        tcp, unix = (PoolingClient(each, timeout=transports.TIMEOUT_S) for each in server.addresses)
        with tcp, unix:
            for payload in PAYLOADS:
                measured += payload_rows(card, payload, tcp, unix, rounds)
    return measured


def payload_rows(
    card: Card, payload: Payload, tcp: PoolingClient, unix: PoolingClient, rounds: int
) -> list[Row]:
    ways = ways_of(card, payload, tcp, unix)
    check(ways)
    calls = max(1, payload.calls // 5)
    taken = report.interleaved(list(ways), rounds, lambda name: median_ms(ways[name], calls))
    about = {"payload": payload.name}
    about |= {"request_bytes": payload.request_bytes, "reply_bytes": payload.reply_bytes}
    return [{"transport": name, **about, "rounds": times} for name, times in taken.items()]


def median_ms(way: Call, calls: int) -> float:
    return statistics.median(report.samples(way, calls))


def ways_of(
    card: Card, payload: Payload, tcp: PoolingClient, unix: PoolingClient
) -> dict[str, Call]:
    """Those that can carry the payload."""
    x = payload.tensor()
    ways = {
        suite.UNARY: transports.ours(payload, x, tcp, transports.NEVER),
        suite.STREAM: transports.ours(payload, x, tcp, transports.ALWAYS),
    }
    if transports.is_shared(payload, unix):
        ways[suite.SHARED] = transports.shared(payload, x, unix)
    host_x, host_y = card.pinned(x.shape), card.pinned(payload.output_shape)
    host_x.copy_(torch.from_numpy(x))
    ways[suite.LOCAL] = transports.local(payload, x)
    ways[TORCH_PINNED] = by_torch(card, payload, host_x, host_y)
    return ways | {LINK: card.both_ways(host_x, card.pinned(payload.output_shape))}


def by_torch(card: Card, payload: Payload, host_x: torch.Tensor, host_y: torch.Tensor) -> Call:
    """To the card, pooled there, and back into memory that is there."""

    def work() -> np.ndarray:
        x = host_x.to(card.device, non_blocking=True)
        y = functional.max_pool2d(x, 3, 2, payload.padding)
        host_y.copy_(y, non_blocking=True)
        card.synchronize()
        return host_y.numpy()

    return work


def check(ways: dict[str, Call]) -> None:
    """Calls each way twice.

    Raises:
        ArithmeticError: one that pools gives other bits than PyTorch.
    """
    expected = ways[TORCH_PINNED]().copy()
    for name, way in ways.items():
        for _ in range(2):
            given = way()
            if name != LINK and not np.array_equal(given, expected):
                raise ArithmeticError(f"{name} does not give what PyTorch gives")
