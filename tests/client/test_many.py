"""Many calls over one stream, with both clients: order, errors, lazy input, and cleanup."""

from __future__ import annotations

import asyncio
import itertools
import signal
import subprocess
import sys
import typing
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest

import pooling_engine
from pooling_client import AsyncPoolingClient, BackwardCall, ForwardCall, PoolingClient, _limits
from pooling_engine import InvalidSpecError, InvalidTensorError, PoolSpec
from pooling_server import PoolingServer, ServerConfig
from tests.client.support import in_flight, threads_of_streams
from tests.support.waiting import LIMIT_S, wait_until

MAX = PoolSpec("max", 2)
X = np.random.default_rng(2).standard_normal((3, 4, 19, 16), dtype=np.float32)


@pytest.fixture
def own() -> Iterator[PoolingServer]:
    server = PoolingServer(ServerConfig(listen="127.0.0.1:0"))
    server.start()
    yield server
    assert server.stop(), "calls were left in flight"
    wait_until(lambda: not threads_of_streams(), "a thread of a stream is left")


def call(value: float, shape: tuple[int, ...] = (1, 1, 4, 4), **options: Any) -> ForwardCall:
    return ForwardCall(np.full(shape, value, np.float32), MAX, **options)


INVALID = BackwardCall(
    np.ones((1, 1, 2, 2), np.float32), MAX, (1, 1, 4, 4), np.full((1, 1, 2, 2), 9, np.uint8)
)


def test_results_come_in_order(own: PoolingServer) -> None:
    with PoolingClient(own.address) as client:
        calls = (call(value, (1, 1 + value % 3, 4, 4)) for value in range(100))
        for value, result in enumerate(client.forward_many(calls)):
            assert result.output.shape == (1, 1 + value % 3, 2, 2)
            assert (result.output == value).all()
            assert result.output.flags.writeable  # it belongs to the caller
        assert value == 99
        assert list(client.forward_many([])) == []


def test_an_error_is_yielded_in_its_place(own: PoolingServer) -> None:
    """The client rejects one call, the server another."""
    good = BackwardCall(np.ones((1, 1, 2, 2), np.float32), PoolSpec("sum", 2), (1, 1, 4, 4))
    local: Any = None
    with PoolingClient(own.address) as client:
        outcomes = list(client.backward_many([good, local, INVALID, good], return_exceptions=True))
    assert [type(outcome) for outcome in outcomes[1:3]] == [InvalidSpecError, InvalidTensorError]
    assert [outcome.field for outcome in outcomes[1:3]] == ["calls", "indices"]
    assert all((outcomes[at] == 1).all() for at in (0, 3))


def test_an_error_is_raised_in_its_place(own: PoolingServer) -> None:
    bad: Any = None
    with PoolingClient(own.address) as client:
        results = client.forward_many([call(1), bad, call(3)])
        assert (next(results).output == 1).all()
        with pytest.raises(InvalidSpecError, match="must be a ForwardCall"):
            next(results)
        with pytest.raises(InvalidTensorError, match="is 9"):
            list(client.backward_many([INVALID]))
        wait_until(lambda: in_flight(own) == 0, "the stream is still open")


def test_errors_before_the_first_request(own: PoolingServer) -> None:
    """Threads switch often: an error may be taken before the sender goes on to the next call."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with PoolingClient(own.address) as client:
            for _ in range(40):
                calls: Any = [None] * 20 + [call(1)] * 3
                outcomes = list(client.forward_many(calls, return_exceptions=True))
                assert [isinstance(each, InvalidSpecError) for each in outcomes[:20]] == [True] * 20
                assert [float(each.output.max()) for each in outcomes[20:]] == [1, 1, 1]
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("wrong", [X, (X, MAX), None, INVALID])
def test_an_object_that_is_not_a_call_is_rejected(own: PoolingServer, wrong: Any) -> None:
    async def outcomes_of_asyncio() -> list[Any]:
        async with AsyncPoolingClient(own.address) as client:
            calls = [call(1), wrong, call(3)]
            return [it async for it in client.forward_many(calls, return_exceptions=True)]

    with PoolingClient(own.address) as client:
        outcomes = list(client.forward_many([call(1), wrong, call(3)], return_exceptions=True))
        with pytest.raises(InvalidSpecError, match="must be a ForwardCall"):
            list(client.forward_many([wrong]))
        with pytest.raises(InvalidSpecError, match="must be a BackwardCall") as caught:
            list(client.backward_many([call(1)]))
        assert caught.value.field == "calls"
    for first, second, third in (outcomes, asyncio.run(outcomes_of_asyncio())):
        assert type(wrong).__name__ in str(second)
        assert isinstance(second, InvalidSpecError)
        assert (first.output == 1).all()
        assert (third.output == 3).all()


@pytest.mark.parametrize("class_", [PoolingClient, AsyncPoolingClient])
def test_a_type_checker_sees_errors_only_if_they_are_requested(class_: Any) -> None:
    kind = "AsyncIterator" if class_ is AsyncPoolingClient else "Iterator"
    for method, result in ((class_.forward_many, "ForwardResult"), (class_.backward_many, "Array")):
        raising, yielding = typing.get_overloads(method)
        assert raising.__annotations__["return_exceptions"] == "Literal[False]"
        assert raising.__annotations__["return"] == f"{kind}[{result}]"
        assert yielding.__annotations__["return"] == f"{kind}[{result} | PoolingError]"


def test_endless_calls_are_taken_as_they_are_needed(own: PoolingServer) -> None:
    taken = []

    def calls() -> Iterator[ForwardCall]:
        for value in itertools.count():
            taken.append(value)
            yield call(value)

    with PoolingClient(own.address) as client:
        results = client.forward_many(calls())
        for value in range(50):
            assert (next(results).output == value).all()
        ahead = (_limits.MANY_WINDOW + 1) * _limits.BATCH_CALLS
        assert len(taken) <= 50 + ahead + 1
        results.close()
        wait_until(lambda: in_flight(own) == 0, "the stream is still open")


def test_an_error_of_the_iterator_is_raised_after_the_earlier_results(own: PoolingServer) -> None:
    def calls() -> Iterator[ForwardCall]:
        yield call(1)
        raise LookupError("no more data")

    with PoolingClient(own.address) as client:
        results = client.forward_many(calls())
        assert (next(results).output == 1).all()
        with pytest.raises(LookupError, match="no more data"):
            next(results)


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize(
    "error",
    [LookupError("x"), SystemExit(7), KeyboardInterrupt(), asyncio.CancelledError("x")],
    ids=lambda error: type(error).__name__,
)
def test_any_error_of_the_iterator_ends_the_call(
    own: PoolingServer, error: BaseException, count: int
) -> None:
    """Errors that are no `Exception` left the caller waiting without end."""

    def calls() -> Iterator[ForwardCall]:
        yield from map(call, range(count))
        raise error

    async def calls_of_asyncio() -> AsyncIterator[ForwardCall]:
        for each in calls():
            await asyncio.sleep(0)
            yield each

    async def run(iterable: Any) -> list[Any]:
        outcomes: list[Any] = []
        async with AsyncPoolingClient(own.address) as client:
            try:
                async for result in client.forward_many(iterable):
                    outcomes.append(float(result.output.max()))
            except BaseException as caught:
                outcomes.append(caught)
        return outcomes

    outcomes: list[Any] = []
    with PoolingClient(own.address) as client:
        try:
            for result in client.forward_many(calls()):
                outcomes.append(float(result.output.max()))
        except BaseException as caught:
            outcomes.append(caught)
    expected = [*range(count), type(error)]
    for each in (outcomes, asyncio.run(run(calls())), asyncio.run(run(calls_of_asyncio()))):
        assert [*each[:-1], type(each[-1])] == expected


INTERRUPTED = """
import itertools, sys, threading
import grpc._channel
import numpy as np
from pooling_client import ForwardCall, PoolingClient, PoolSpec

next_reply = grpc._channel._MultiThreadedRendezvous._next
calls = itertools.count()


def interrupted(stream):
    if next(calls) < 2:
        return next_reply(stream)
    held = threading.Event()
    hold = lambda: stream._state.condition.acquire() and held.set() or threading.Event().wait()
    threading.Thread(target=hold, daemon=True).start()
    held.wait()
    raise KeyboardInterrupt


grpc._channel._MultiThreadedRendezvous._next = interrupted
call = ForwardCall(np.ones((1, 1, 4, 4), np.float32), PoolSpec("max", 2))
for result in PoolingClient(sys.argv[1]).forward_many(iter(lambda: call, None)):
    pass
"""


def test_an_interrupt_that_leaves_a_lock_of_grpc_held_ends_the_program(own: PoolingServer) -> None:
    command = [sys.executable, "-c", INTERRUPTED, own.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == -signal.SIGINT, done.stderr
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.endswith("KeyboardInterrupt\n")


@pytest.mark.parametrize("wrong", [None, 5, call(1)])
def test_calls_that_are_no_iterable_are_rejected(own: PoolingServer, wrong: Any) -> None:
    async def run() -> None:
        async with AsyncPoolingClient(own.address) as client:
            async for _ in client.backward_many(wrong):
                pass

    expected = pytest.raises(InvalidSpecError, match="must be an iterable of ForwardCall")
    with PoolingClient(own.address) as client, expected as caught:
        list(client.forward_many(wrong))
    assert caught.value.field == "calls"
    with pytest.raises(InvalidSpecError, match="must be an iterable of BackwardCall"):
        asyncio.run(run())


def test_a_wrong_return_exceptions_is_rejected(own: PoolingServer) -> None:
    expected = pytest.raises(InvalidSpecError, match="return_exceptions is 'no'; it must be True")
    wrong: Any = "no"
    with PoolingClient(own.address) as client, expected:
        list(client.forward_many([call(1)], return_exceptions=wrong))


def test_a_result_arrives_before_the_next_call_is_made(own: PoolingServer) -> None:
    """Each call depends on the previous result."""
    values = [1.0]

    def calls() -> Iterator[ForwardCall]:
        for at in range(5):
            wait_until(lambda at=at: len(values) > at, "the result did not come")
            yield call(values[at])

    with PoolingClient(own.address) as client:
        for result in client.forward_many(calls()):
            values.append(float(result.output.max()) * 2)
    assert values == [1, 2, 4, 8, 16, 32]


def test_the_asyncio_client(own: PoolingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_limits, "CHUNK_BYTES", 600)
    monkeypatch.setattr(_limits, "STREAM_BYTES", 100)
    spec = PoolSpec("max", 3, 2, 1)
    expected = pooling_engine.forward(X, spec, return_indices=True)
    gradient = pooling_engine.backward(
        expected.output, spec, input_shape=X.shape, indices=expected.indices
    )

    async def later() -> AsyncIterator[ForwardCall]:
        for value in range(40):
            await asyncio.sleep(0)
            yield call(value)

    async def calls() -> None:
        async with AsyncPoolingClient(own.address) as client:
            seen: list[int] = []
            result = await client.forward(
                X, spec, return_indices=True, progress=lambda done, _: seen.append(done)
            )
            np.testing.assert_array_equal(result.output, expected.output)
            np.testing.assert_array_equal(result.indices, expected.indices)
            assert len(seen) > 10
            assert seen == sorted(seen)
            dx = await client.backward(
                result.output, spec, input_shape=X.shape, indices=result.indices
            )
            np.testing.assert_array_equal(dx, gradient)
            values = [r.output.max() async for r in client.forward_many(later())]
            assert values == list(range(40))
            bad: Any = [call(1), None, call(3)]
            outcomes = [o async for o in client.forward_many(bad, return_exceptions=True)]
            assert isinstance(outcomes[1], InvalidSpecError)
            assert outcomes[2].output.max() == 3
            with pytest.raises(InvalidTensorError, match="is 9"):
                async for _ in client.backward_many([INVALID]):
                    pass
            sent = {"input_shape": X.shape, "indices": np.full_like(result.indices, 77)}
            with pytest.raises(InvalidTensorError) as local:
                pooling_engine.backward(result.output, spec, **sent)
            with pytest.raises(InvalidTensorError) as remote:
                await client.backward(result.output, spec, **sent)
            assert str(remote.value) == str(local.value)

    asyncio.run(calls())
    wait_until(lambda: in_flight(own) == 0, "a stream is still open")
