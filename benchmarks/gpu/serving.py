"""Calls through the server on one host, beside PyTorch with page-locked copies."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks import report
from benchmarks.gpu.device import Device
from benchmarks.gpu.goals import LINK, TORCH_PINNED
from benchmarks.wire import servers as wire_servers
from benchmarks.wire import suite, transports
from benchmarks.wire.suite import Payload
from benchmarks.wire.transports import Call
from pooling_client import PoolingClient

Row = dict[str, Any]
PAYLOADS = tuple(each for each in suite.PAYLOADS if each.name in ("12 KB", "12 MB", "103 MB"))


def rows(device: Device, rounds: int) -> list[Row]:
    """Return a row per payload and transport, with the milliseconds of the rounds.

    Raises:
        ArithmeticError: a result differs from that of PyTorch.
    """
    measured = []
    # Without warm-up, first calls wait for kernels; otherwise NumPy would compute some of them.
    with wire_servers.pooling_server(backend=device.backend, warm_up=False) as server:
        tcp, unix = (PoolingClient(each, timeout=transports.TIMEOUT_S) for each in server.addresses)
        with tcp, unix:
            for payload in PAYLOADS:
                measured += payload_rows(device, payload, tcp, unix, rounds)
    return measured


def payload_rows(
    device: Device, payload: Payload, tcp: PoolingClient, unix: PoolingClient, rounds: int
) -> list[Row]:
    calls = calls_for(device, payload, tcp, unix)
    check(calls)
    count = max(1, payload.calls // 5)
    taken = report.interleaved(list(calls), rounds, lambda name: median_ms(calls[name], count))
    about = {"payload": payload.name}
    about |= {"request_bytes": payload.request_bytes, "reply_bytes": payload.reply_bytes}
    return [{"transport": name, **about, "rounds": times} for name, times in taken.items()]


def median_ms(call: Call, count: int) -> float:
    return statistics.median(report.samples(call, count))


def calls_for(
    device: Device, payload: Payload, tcp: PoolingClient, unix: PoolingClient
) -> dict[str, Call]:
    """Return the transports that can carry the payload."""
    x = payload.tensor()
    calls = {
        suite.UNARY: transports.ours(payload, x, tcp, transports.NEVER),
        suite.STREAM: transports.ours(payload, x, tcp, transports.ALWAYS),
    }
    if transports.is_shared(payload, unix):
        calls[suite.SHARED] = transports.shared(payload, x, unix)
    host_x, host_y = device.pinned(x.shape), device.pinned(payload.output_shape)
    host_x.copy_(torch.from_numpy(x))
    calls[suite.LOCAL] = transports.local(payload, x)
    calls[TORCH_PINNED] = by_torch(device, payload, host_x, host_y)
    return calls | {LINK: device.copy_in_and_out(host_x, device.pinned(payload.output_shape))}


def by_torch(device: Device, payload: Payload, host_x: torch.Tensor, host_y: torch.Tensor) -> Call:
    """Return a call of PyTorch: copy to the GPU, pool there, and copy into existing memory."""

    def work() -> np.ndarray:
        x = host_x.to(device.device, non_blocking=True)
        y = functional.max_pool2d(x, 3, 2, payload.padding)
        host_y.copy_(y, non_blocking=True)
        device.synchronize()
        return host_y.numpy()

    return work


def check(calls: dict[str, Call]) -> None:
    """Call each transport twice.

    Raises:
        ArithmeticError: a pooled result is not bit-identical to that of PyTorch.
    """
    expected = calls[TORCH_PINNED]().copy()
    for name, call in calls.items():
        for _ in range(2):
            result = call()
            if name != LINK and not np.array_equal(result, expected):
                raise ArithmeticError(f"{name}: the result differs from that of PyTorch")
