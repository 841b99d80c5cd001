"""All ways to send calls, against a real server; every reply is checked."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pooling_loadtest.settings import KindOfCall
from pooling_server import PoolingServer, ServerConfig
from tests.loadtest.support import SPEC, run

AVERAGE = {"mode": "average", "kernel": 3, "stride": 2, "padding": 1}
MIXED = [
    KindOfCall(
        name=f"{direction} {transport}",
        shape=(2, 3, 9, 9),
        spec=AVERAGE if transport == "many" else SPEC,
        direction=direction,
        transport=transport,
        return_indices=transport == "unary" and direction == "forward",
    )
    for direction in ("forward", "backward")
    for transport in ("unary", "stream", "many", "shared_memory")
]
KINDS = (
    *MIXED,
    KindOfCall("bfloat16", (1, 2, 6, 6), "bfloat16", SPEC),
    KindOfCall("int8", (1, 2, 6, 6), "int8", SPEC),
    KindOfCall("lp gradient", (1, 2, 6, 6), "float64", SPEC | {"mode": "lp"}, "backward"),
    KindOfCall("ties", (1, 2, 6, 6), "float32", SPEC | {"tie_policy": "split"}, "backward"),
)


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        address = f"unix:{Path(folder) / 's'}"
        config = ServerConfig(
            listen=address, backend="numpy", warm_up=False, shared_memory_bytes=16 << 20
        )
        server = PoolingServer(config)
        server.start()
        yield address
        assert server.stop(), "calls were left in flight"


@pytest.mark.parametrize("callers", [None, 6])
def test_every_transport_gets_right_answers(target: str, callers: int | None) -> None:
    results = run(target, kinds=KINDS, callers=callers, verify=1.0, processes=2, rate=300)
    calls = results.calls
    assert calls.is_ok.all(), np.unique(calls.status, return_counts=True)
    assert results.run.verify == {"fraction": 1.0, "checked": len(calls), "wrong": 0}
    assert set(calls.kind) == set(range(len(KINDS)))
    assert (calls.sent_ns >= calls.scheduled_ns).all()
    assert (calls.done_ns > calls.sent_ns).all()
    is_unary = np.array([kind.transport == "unary" for kind in KINDS])[calls.kind]
    assert not np.isnan(calls.total_us[is_unary]).any()
    assert (calls.total_us[is_unary] <= (calls.latency_ns[is_unary] / 1e3)).all()
    for number, kind in enumerate(results.run.kinds):
        assert set(calls.sent_bytes[calls.kind == number]) == {kind.sent_bytes}
    assert results.run.server_info is not None


def test_every_unary_call_gets_right_answers_over_the_open_inference_protocol(target: str) -> None:
    kinds = tuple(kind for kind in KINDS if kind.transport == "unary")
    results = run(target, kinds=kinds, protocol="oip-grpc", verify=1.0, rate=200)
    calls = results.calls
    assert calls.is_ok.all(), np.unique(calls.status, return_counts=True)
    assert results.run.verify == {"fraction": 1.0, "checked": len(calls), "wrong": 0}
    assert set(calls.kind) == set(range(len(kinds)))
    assert {kind.transport for kind in results.run.kinds} == {"oip-grpc"}
