"""All ways to send calls, against a real server; every reply is checked."""

from __future__ import annotations

import re
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pooling_loadtest.calls import NO_STATUS, Calls
from pooling_loadtest.recorder import UNKNOWN, Recorder
from pooling_loadtest.settings import KindOfCall
from pooling_loadtest.target import Target
from pooling_server import PoolingServer, ServerConfig
from tests.loadtest.support import SPEC, load_test, run
from tests.support.waiting import LIMIT_S, wait_until

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


@pytest.mark.parametrize("kind", MIXED, ids=lambda kind: kind.name)
def test_a_fault_of_the_generator_is_recorded_and_ends_the_run(
    target: str, kind: KindOfCall
) -> None:
    connected = Target(load_test(target, kinds=(kind,)))
    connected.probe()
    calls = Calls.empty(3)
    recorder = Recorder(calls, time.monotonic_ns(), 1.0, 0, [broken_check])
    (sender,) = connected.senders(recorder)
    ended = threading.Event()
    recorder.at_fault = ended.set
    sender.send(0, 0)
    assert ended.wait(LIMIT_S)
    wait_until(lambda: recorder.done == 1)
    assert calls.status.tolist() == [UNKNOWN, NO_STATUS, NO_STATUS]
    assert re.fullmatch(
        r"TypeError: a check that fails \(test_transports.py:\d+\)", str(recorder.fault)
    )
    recorder.end()
    sender.close()
    connected.close()


def broken_check(variant: int, reply: object) -> bool:
    raise TypeError("a check\nthat fails")


def test_every_unary_call_gets_right_answers_over_the_open_inference_protocol(target: str) -> None:
    kinds = tuple(kind for kind in KINDS if kind.transport == "unary")
    results = run(target, kinds=kinds, protocol="oip-grpc", verify=1.0, rate=200)
    calls = results.calls
    assert calls.is_ok.all(), np.unique(calls.status, return_counts=True)
    assert results.run.verify == {"fraction": 1.0, "checked": len(calls), "wrong": 0}
    assert set(calls.kind) == set(range(len(kinds)))
    assert {kind.transport for kind in results.run.kinds} == {"oip-grpc"}
