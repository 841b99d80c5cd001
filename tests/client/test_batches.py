"""Calls of `forward_many` that share a message: results, errors, and which calls are joined."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import pooling_engine
from pooling_client import AsyncPoolingClient, ForwardCall, PoolingClient, _limits
from pooling_client._calls.batches import Pending
from pooling_client._calls.forward import PreparedForward
from pooling_engine import InvalidTensorError, PoolSpec, TensorTooLargeError
from pooling_server import PoolingServer, ServerConfig
from tests.support.waiting import wait_until

MAX, MEAN = PoolSpec("max", 3, 2, 1), PoolSpec("average", 2)
LAST = PoolSpec("max", 2, layout="channels_last")
STRICT = PoolSpec("max", 2, nan_policy="error")
RANDOM = np.random.default_rng(7)
Many = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def server() -> Iterator[PoolingServer]:
    server = PoolingServer(ServerConfig(listen="127.0.0.1:0", backend="numpy"))
    server.start()
    yield server
    assert server.stop(), "calls were left in flight"


def blocking(address: str, calls: Any, **options: Any) -> list[Any]:
    with PoolingClient(address) as client:
        return list(client.forward_many(calls, **options))


def asynchronous(address: str, calls: Any, **options: Any) -> list[Any]:
    async def many() -> list[Any]:
        async with AsyncPoolingClient(address) as client:
            return [each async for each in client.forward_many(calls, **options)]

    return asyncio.run(many())


clients = pytest.mark.parametrize("many", [blocking, asynchronous])


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Calls of each message, in order."""
    sizes = []
    take = Pending.take

    def noted(self: Pending[Any]) -> Any:
        batch, request = take(self)
        sizes.append(len(batch.calls))
        return batch, request

    monkeypatch.setattr(Pending, "take", noted)
    return sizes


def tensor(*shape: int, dtype: str = "float32") -> np.ndarray:
    return (RANDOM.standard_normal(shape) * 50).astype(dtype)


def assert_same(result: Any, call: ForwardCall) -> None:
    options = {"return_indices": call.return_indices, "index_format": call.index_format}
    expected = pooling_engine.forward(call.input, call.spec, backend="numpy", **options)
    assert result.output.tobytes() == expected.output.tobytes()
    assert result.output.shape == expected.output.shape
    assert (result.indices is None) == (expected.indices is None)
    if expected.indices is not None:
        np.testing.assert_array_equal(result.indices, expected.indices)
        assert result.indices.dtype == expected.indices.dtype
    assert result.output.flags.owndata


@clients
@pytest.mark.parametrize(
    "make",
    [
        lambda: ForwardCall(tensor(1, 3, 9, 9), MAX),
        lambda: ForwardCall(tensor(2, 3, 9, 9, dtype="float16"), MEAN),
        lambda: ForwardCall(tensor(1, 3, 9, 9), MAX, True),
        lambda: ForwardCall(tensor(1, 3, 9, 9), MAX, True, "plane"),
        lambda: ForwardCall(tensor(2, 3, 9, 9), MAX, True, "tensor"),
        lambda: ForwardCall(tensor(2, 8, 8, 5), LAST, True),
        lambda: ForwardCall(tensor(1, 2, 8, dtype="int32"), PoolSpec("sum", 2)),
    ],
    ids=["max", "two items", "window", "plane", "tensor", "channels last", "integers"],
)
def test_results_are_those_of_single_calls(
    server: PoolingServer, many: Many, make: Callable[[], ForwardCall]
) -> None:
    calls = [make() for _ in range(60)]
    for result, call in zip(many(server.address, calls), calls, strict=True):
        assert_same(result, call)


@clients
def test_calls_that_are_ready_share_messages(
    server: PoolingServer, many: Many, messages: list[int]
) -> None:
    """Every message but the first few has to wait for one of the window."""
    calls = [ForwardCall(tensor(1 + at % 2, 3, 9, 9), MAX) for at in range(400)]
    for result, call in zip(many(server.address, iter(calls)), calls, strict=True):
        assert_same(result, call)
    assert sum(messages) == 400
    assert 1 < max(messages) <= _limits.BATCH_CALLS


@clients
def test_an_invalid_call_fails_alone(server: PoolingServer, many: Many) -> None:
    calls = [ForwardCall(tensor(1, 1, 4, 4), STRICT) for _ in range(64)]
    bad = {3, 40, 41}
    for at in bad:
        calls[at].input[0, 0, 1, 1] = np.nan
    outcomes = many(server.address, calls, return_exceptions=True)
    assert {at for at, each in enumerate(outcomes) if isinstance(each, Exception)} == bad
    for at, outcome in enumerate(outcomes):
        if at in bad:
            assert isinstance(outcome, InvalidTensorError)
        else:
            assert_same(outcome, calls[at])
    with pytest.raises(InvalidTensorError):
        many(server.address, calls)


@clients
def test_calls_that_only_fit_the_server_alone(many: Many) -> None:
    """The joined call exceeds a limit of the server; each call alone does not."""
    options = {"max_message_bytes": 4096, "max_tensor_bytes": 4096}
    server = PoolingServer(ServerConfig(listen="127.0.0.1:0", backend="numpy", **options))
    server.start()
    try:
        calls = [ForwardCall(tensor(1, 3, 9, 9), MAX) for _ in range(50)]
        for result, call in zip(many(server.address, calls), calls, strict=True):
            assert_same(result, call)
        large = [ForwardCall(tensor(1, 16, 9, 9), MAX)] * 2
        outcomes = many(server.address, large, return_exceptions=True)
        assert [type(each) for each in outcomes] == [TensorTooLargeError] * 2
    finally:
        server.stop()


def taken(*calls: Any) -> list[int]:
    """Return the number of calls in each message; 0 for the error of an invalid call."""
    pending: Pending[Any] = Pending(PreparedForward)
    for call in calls:
        pending.add(call)
    sizes = []
    while pending:
        batch, _ = pending.take()
        sizes.append(len(batch.calls))
    assert not pending.is_full
    return sizes


def test_only_equal_small_calls_share_a_message() -> None:
    x, wide = tensor(1, 3, 9, 9), tensor(1, 3, 9, 10)
    a, equal = ForwardCall(x, MAX), ForwardCall(tensor(4, 3, 9, 9), PoolSpec("max", 3, 2, 1))
    assert taken(a, equal, a) == [3]
    others = [
        ForwardCall(x, MEAN),
        ForwardCall(wide, MAX),
        ForwardCall(x.astype("float64"), MAX),
        ForwardCall(x, MAX, True),
        ForwardCall(x, MAX, True, "plane"),
        None,
    ]
    for other in others:
        assert taken(a, other, a) == [1, 0 if other is None else 1, 1]
    in_tensor = ForwardCall(x, MAX, True, "tensor")
    assert taken(in_tensor, in_tensor) == [1, 1]


def test_a_message_is_bounded_in_bytes_and_in_work() -> None:
    half = ForwardCall(np.zeros((1, 1, 128, 128), np.float32), MAX)  # 64 KiB
    assert taken(half, half, half) == [2, 1]
    slow = ForwardCall(np.zeros((1, 1, 64, 64), np.float32), PoolSpec("lp", 5, 1))
    assert taken(slow, slow) == [1, 1]


def test_closing_the_iterator_ends_the_thread_that_takes_calls(server: PoolingServer) -> None:
    def calls() -> Iterator[ForwardCall]:
        while True:
            yield ForwardCall(tensor(1, 3, 9, 9), MAX)

    with PoolingClient(server.address) as client:
        results = client.forward_many(calls())
        next(results)
        results.close()  # type: ignore[attr-defined]
        wait_until(
            lambda: "pooling-calls" not in [each.name for each in threading.enumerate()],
            "the thread is left",
        )
