"""Decisions of a call, with a server that is not there: the steps, their order and their errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pooling_engine
from pooling_client import _call_steps, _limits, _steps
from pooling_client._calls.forward import PreparedForward
from pooling_client._shared_memory import SharedMemory
from pooling_engine import (
    ForwardCall,
    InvalidTensorError,
    OverloadedError,
    PoolSpec,
    TensorTooLargeError,
    UnavailableError,
    UnsupportedError,
)
from pooling_wire import Limits
from tests.client.support import DRIVERS, FakeServer

MAX = PoolSpec("max", 2)
GLOBAL = PoolSpec("max", global_window=True)
SMALL = np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8)
LARGE = np.random.default_rng(0).standard_normal((4, 4, 32, 32), dtype=np.float32)
LOW = Limits(4096 + 1024, 4096, 1 << 60, 32)
BUSY = OverloadedError("busy", facts={"retry_after_s": "0.25"})
TOO_LARGE = TensorTooLargeError("too large", field="input")
Driver = Callable[[Any, FakeServer], Any]

pytestmark = pytest.mark.parametrize("driver", DRIVERS)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_limits, "STREAM_BYTES", 32 << 10)
    monkeypatch.setattr(_limits, "CHUNK_BYTES", 8 << 10)


class Caller:
    """Client whose server is a `FakeServer`."""

    def __init__(self, driver: Driver, server: FakeServer) -> None:
        self._driver, self._server = driver, server
        self._session = _steps.Session(SharedMemory("127.0.0.1:1"))
        self.progress: list[tuple[int, int]] = []

    def report(self, done: int, total: int) -> None:
        self.progress.append((done, total))

    def forward(self, x: Any, spec: PoolSpec = MAX, timeout_s: float = 10.0) -> Any:
        call = PreparedForward(ForwardCall(x, spec))
        deadline = _steps.monotonic() + timeout_s
        return self._driver(
            _call_steps.call_steps(call, self._session, self.report, deadline), self._server
        )


def assert_pooled(result: Any, x: Any, spec: PoolSpec = MAX) -> None:
    np.testing.assert_array_equal(result.output, pooling_engine.forward(x, spec).output)


def test_a_small_call_is_one_message(driver: Driver) -> None:
    server = FakeServer()
    caller = Caller(driver, server)
    assert_pooled(caller.forward(SMALL), SMALL)
    assert server.methods == ["Forward"]
    assert caller.progress == [(SMALL.nbytes, SMALL.nbytes)]


def test_a_large_call_fetches_the_limits_once_and_is_streamed(driver: Driver) -> None:
    server = FakeServer()
    caller = Caller(driver, server)
    for _ in range(2):
        assert_pooled(caller.forward(LARGE), LARGE)
    assert server.methods == ["GetServerInfo", "ForwardStream", "ForwardStream"]
    assert server.items == 2 * LARGE.nbytes // (8 << 10)
    assert caller.progress[-1] == (LARGE.nbytes, LARGE.nbytes)
    assert len(caller.progress) == server.items + 2


def test_chunks_respect_the_limits_of_the_server(driver: Driver) -> None:
    server = FakeServer(LOW)
    assert_pooled(Caller(driver, server).forward(LARGE), LARGE)
    assert server.items == LARGE.nbytes // 4096


def test_a_rejected_message_is_split_if_the_limits_allow_that(driver: Driver) -> None:
    x = LARGE[:1]
    server = FakeServer(LOW)
    server.errors = {"Forward": [TOO_LARGE]}
    caller = Caller(driver, server)
    assert_pooled(caller.forward(x), x)
    assert server.methods == ["Forward", "GetServerInfo", "ForwardStream"]
    assert_pooled(caller.forward(x), x)
    assert server.methods[3:] == ["ForwardStream"]


def test_a_rejected_message_within_the_limits_is_an_error(driver: Driver) -> None:
    server = FakeServer()
    server.errors = {"Forward": [TOO_LARGE]}
    with pytest.raises(TensorTooLargeError) as caught:
        Caller(driver, server).forward(SMALL)
    assert caught.value is TOO_LARGE
    assert server.methods == ["Forward", "GetServerInfo"]


def test_limits_that_have_become_lower_are_respected(driver: Driver) -> None:
    server = FakeServer()
    caller = Caller(driver, server)
    caller.forward(LARGE)
    server.limits, server.items = LOW, 0
    server.errors = {"ForwardStream": [TOO_LARGE]}
    assert_pooled(caller.forward(LARGE), LARGE)
    assert server.methods[2:] == ["ForwardStream", "GetServerInfo", "ForwardStream"]
    assert server.items == LARGE.nbytes // 4096


def test_a_rejected_stream_with_the_same_limits_is_an_error(driver: Driver) -> None:
    server = FakeServer()
    server.errors = {"ForwardStream": [TOO_LARGE]}
    with pytest.raises(TensorTooLargeError) as caught:
        Caller(driver, server).forward(LARGE)
    assert caught.value is TOO_LARGE
    assert server.methods == ["GetServerInfo", "ForwardStream", "GetServerInfo"]


def test_a_second_rejected_stream_is_an_error(driver: Driver) -> None:
    server = FakeServer()
    caller = Caller(driver, server)
    caller.forward(LARGE)
    server.limits = LOW
    server.errors = {"ForwardStream": [TOO_LARGE, TOO_LARGE]}
    with pytest.raises(TensorTooLargeError):
        caller.forward(LARGE)


def test_a_server_without_information_is_called_all_the_same(driver: Driver) -> None:
    server = FakeServer()
    server.errors = {"GetServerInfo": [UnsupportedError("not now")]}
    assert_pooled(Caller(driver, server).forward(LARGE), LARGE)
    assert server.methods == ["GetServerInfo", "ForwardStream"]


def test_a_rejected_request_is_sent_again_after_the_stated_delay(driver: Driver) -> None:
    server = FakeServer()
    server.errors = {"Forward": [UnavailableError("gone"), BUSY, BUSY]}
    assert_pooled(Caller(driver, server).forward(SMALL), SMALL)
    assert server.methods == ["Forward"] * 4
    assert len(server.waits) == 3
    assert all(wait_s >= 0.25 for wait_s in server.waits[1:])


def test_no_request_is_sent_when_the_delay_exceeds_the_deadline(driver: Driver) -> None:
    server = FakeServer()
    server.errors = {"Forward": [BUSY]}
    with pytest.raises(OverloadedError) as caught:
        Caller(driver, server).forward(SMALL, timeout_s=0.2)
    assert caught.value is BUSY
    assert (server.methods, server.waits) == (["Forward"], [])


@pytest.mark.parametrize("error", [OverloadedError("busy"), InvalidTensorError("no")])
def test_other_errors_end_the_call(driver: Driver, error: Exception) -> None:
    for x, method in ((SMALL, "Forward"), (LARGE, "ForwardStream")):
        server = FakeServer()
        server.errors = {method: [error]}  # type: ignore[list-item]
        with pytest.raises(type(error)) as caught:
            Caller(driver, server).forward(x)
        assert caught.value is error
        assert server.methods.count(method) == 1


def test_an_error_of_the_progress_callback_ends_the_call(driver: Driver) -> None:
    class Failing(Caller):
        def report(self, done: int, total: int) -> None:
            raise LookupError("progress")

    server = FakeServer()
    caller = Failing(driver, server)
    for x in (SMALL, LARGE):
        with pytest.raises(LookupError, match="progress"):
            caller.forward(x)
    assert server.items == 1


def test_every_step_has_the_seconds_that_are_left(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(100))
    monkeypatch.setattr(_steps, "monotonic", lambda: float(next(ticks)))
    server = FakeServer(LOW)
    server.errors = {"ForwardStream": [TOO_LARGE]}
    caller = Caller(driver, server)
    caller._session.limits = _call_steps.request_limits(Limits(1 << 20, 1 << 20, 1, 1))
    assert_pooled(caller.forward(LARGE, timeout_s=2.0), LARGE)
    assert server.seen == [("ForwardStream", 1.0), ("GetServerInfo", 0.0), ("ForwardStream", 0.0)]
