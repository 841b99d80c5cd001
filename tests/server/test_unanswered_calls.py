"""Shared memory after calls without an answer: the server writes results that are too late."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import pooling_engine
from pooling_client import AsyncPoolingClient, PoolingClient
from pooling_client._transports.sync import GrpcTransport
from pooling_engine import DeadlineError, PoolSpec, UnavailableError
from pooling_server import PoolingServer
from tests.support import cases, oracle
from tests.support.waiting import LIMIT_S, wait_until

SHAPE = (4, 64, 56, 56)  # 3 MiB
SAME = PoolSpec("sum", 3, 1, 1)  # the output has the shape of the input
MARK = 7.0
TIMEOUTS_S = (0.5, 2.0, 10.0)


class HeldCalls:
    """Replacement of `pooling_engine.run` that holds calls until `release`.

    Attributes:
        holds: False to compute further calls at once.
        entered: number of calls that were held.
        finished: number of calls that have written their results.
    """

    def __init__(self) -> None:
        self._compute = pooling_engine.run
        self._release = threading.Event()
        self.holds = True
        self.entered = self.finished = 0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if not self.holds:
            return self._compute(*arguments, **options)
        self.entered += 1
        assert self._release.wait(LIMIT_S)
        result = self._compute(*arguments, **options)
        self.finished += 1
        return result

    def release(self) -> None:
        """Let the calls that are held write their results, and wait until they have."""
        self._release.set()
        wait_until(lambda: self.finished == self.entered)

    def lose(self, call: Callable[[float], Any]) -> None:
        """Make a call end at its timeout while it is held.

        Args:
            call: makes the call with a timeout in seconds.
        """
        for timeout_s in TIMEOUTS_S:  # a busy machine may take longer to begin
            with pytest.raises(DeadlineError):
                call(timeout_s)
            if self.entered:
                return
        raise AssertionError("the server did not begin the call")


@pytest.fixture(autouse=True)
def two_slots() -> Iterator[None]:
    """Let servers compute a call beside one that is held."""
    before = pooling_engine.thread_count()
    pooling_engine.set_thread_count(2)
    yield
    pooling_engine.set_thread_count(before)


@pytest.fixture
def near(unix_server: PoolingServer) -> Iterator[PoolingClient]:
    with PoolingClient(unix_server.addresses[0]) as client:
        yield client


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldCalls]:
    held = HeldCalls()
    monkeypatch.setattr(pooling_engine, "run", held)
    yield held
    held.release()


def marked(client: PoolingClient) -> list[np.ndarray]:
    """Return new arrays in shared memory, full of `MARK`."""
    gc.collect()  # an exception and its traceback refer to the arrays of a failed call
    arrays = [client.empty(SHAPE) for _ in range(3)]
    for array in arrays:
        array[...] = MARK
    return arrays


def test_no_other_array_gets_the_memory_of_a_late_result(
    near: PoolingClient, held: HeldCalls
) -> None:
    x = cases.normal(SHAPE)
    held.lose(lambda timeout_s: near.forward(x, SAME, timeout=timeout_s))
    later = marked(near)
    held.release()
    assert all((array == MARK).all() for array in later)


@pytest.mark.parametrize("is_part", [False, True], ids=["whole", "part"])
def test_a_late_result_is_not_written_to_out(
    near: PoolingClient, held: HeldCalls, is_part: bool
) -> None:
    x, buffer = cases.normal(SHAPE), near.empty((2, *SHAPE))
    out = buffer[1] if is_part else near.empty(SHAPE)
    held.lose(lambda timeout_s: near.forward(x, SAME, out=out, timeout=timeout_s))
    buffer[...] = out[...] = MARK
    held.release()
    assert (out == MARK).all()
    assert (buffer == MARK).all()
    assert near.forward(x, SAME, out=out).output is out
    oracle.assert_same_bits(out, pooling_engine.forward(x, SAME).output)
    assert (buffer[0] == MARK).all()


def test_a_result_after_a_lost_answer_belongs_to_the_caller(
    near: PoolingClient, held: HeldCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, attempts = GrpcTransport.send, []

    def losing(self: Any, method: str, request: bytes, timeout_s: float) -> bytes:
        attempts.append(method)
        if len(attempts) > 1:
            return send(self, method, request, timeout_s)
        held.lose(lambda timeout_s: send(self, method, request, timeout_s))
        held.holds = False
        raise UnavailableError("the connection was lost")

    x = cases.normal(SHAPE)
    monkeypatch.setattr(GrpcTransport, "send", losing)
    result = near.forward(x, SAME).output
    oracle.assert_same_bits(result, pooling_engine.forward(x, SAME).output)
    result[...] = MARK
    held.release()
    assert (result == MARK).all()


def test_another_call_into_the_same_region_has_the_right_result(
    near: PoolingClient, held: HeldCalls
) -> None:
    x, buffer = cases.normal(SHAPE), near.empty((2, *SHAPE))

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(near.forward, x, SAME, out=buffer[0])
        wait_until(lambda: held.entered == 1)
        with pytest.raises(DeadlineError):
            near.forward(-x, SAME, out=buffer[1], timeout=TIMEOUTS_S[0])
        held.release()
        other.result(LIMIT_S)
    oracle.assert_same_bits(buffer[0], pooling_engine.forward(x, SAME).output)


def test_the_late_result_of_a_cancelled_call_is_not_written_to_out(
    unix_server: PoolingServer, held: HeldCalls
) -> None:
    async def cancel() -> None:
        async with AsyncPoolingClient(unix_server.addresses[0]) as client:
            out = client.empty(SHAPE)
            task = asyncio.ensure_future(client.forward(cases.normal(SHAPE), SAME, out=out))
            await asyncio.to_thread(wait_until, lambda: held.entered == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            out[...] = MARK
            held.release()
            assert (out == MARK).all()

    asyncio.run(cancel())
