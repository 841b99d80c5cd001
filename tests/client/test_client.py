"""The clients mirror the engine: bit-identical results and the same errors."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest

import pooling_engine
import pooling_wire
from pooling_client import AsyncPoolingClient, ForwardCall, PoolingClient
from pooling_engine import (
    DeadlineError,
    InvalidSpecError,
    InvalidTensorError,
    PoolSpec,
    TensorTooLargeError,
    UnavailableError,
    UnsupportedError,
)
from pooling_engine.backends import available_backends
from pooling_server import PoolingServer, ServerConfig
from tests.client.support import assert_same
from tests.support.waiting import LIMIT_S, quiet_port

RNG = np.random.default_rng(7)
SPECS = {
    "max": PoolSpec("max", kernel=3, stride=2, padding=1),
    "min, channels last": PoolSpec("min", kernel=2, layout="channels_last"),
    "average, ceil": PoolSpec("average", kernel=3, stride=2, padding=(0, (1, 2)), ceil_mode=True),
    "sum, dilated": PoolSpec("sum", kernel=2, stride=1, dilation=2),
    "lp, same": PoolSpec("lp", kernel=3, stride=2, padding="same_upper", norm_p=3),
    "max, adaptive": PoolSpec("max", adaptive_output=(4, 3)),
    "average, global": PoolSpec("average", global_window=True),
}


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float32", "float64"])
@pytest.mark.parametrize("name", SPECS)
def test_forward_and_backward_equal_the_engine(
    client: PoolingClient, name: str, dtype: str
) -> None:
    spec = SPECS[name]
    x = RNG.standard_normal((2, 5, 9, 8)).astype(dtype)
    selects = spec.mode in ("max", "min")
    local = pooling_engine.forward(x, spec, return_indices=selects)
    remote = client.forward(x, spec, return_indices=selects)
    assert_same(remote.output, local.output)
    if selects:
        assert_same(remote.indices, local.indices)

    dy = RNG.standard_normal(local.output.shape).astype(dtype)
    residual: dict[str, Any] = {"input_shape": x.shape, "indices": local.indices}
    if spec.mode == "lp":
        residual = {"input": x}
    assert_same(
        client.backward(dy, spec, **residual), pooling_engine.backward(dy, spec, **residual)
    )


@pytest.mark.parametrize("index_format", ["window", "plane", "tensor"])
def test_indices_of_every_format_round_trip(client: PoolingClient, index_format: str) -> None:
    spec, x = SPECS["max"], RNG.standard_normal((2, 3, 9, 8))
    result = client.forward(x, spec, return_indices=True, index_format=index_format)
    local = pooling_engine.forward(x, spec, return_indices=True, index_format=index_format)
    assert_same(result.indices, local.indices)
    dx = client.backward(
        result.output, spec, input_shape=x.shape, indices=result.indices, index_format=index_format
    )
    assert_same(dx, pooling_engine.backward(local.output, spec, input=x))


def test_results_are_writable_and_written_to_out(client: PoolingClient) -> None:
    x, spec = np.ones((1, 1, 4, 4)), PoolSpec("sum", kernel=2)
    output = client.forward(x, spec).output
    output += 1
    out = np.zeros_like(output)
    assert client.forward(x, spec, out=out).output is out
    assert (out == 4).all()
    dx = np.zeros_like(x)
    assert client.backward(out, spec, input_shape=x.shape, out=dx) is dx
    assert (dx == 4).all()


def test_element_types_equal_those_of_the_engine(client: PoolingClient) -> None:
    x = np.ones((1, 1, 4, 4), np.int64)
    for mode in ("max", "sum", "average"):
        spec = PoolSpec(mode, 2)
        ours, theirs = (it.forward(x, spec).output.dtype for it in (pooling_engine, client))
        assert repr(theirs) == repr(ours)


def test_every_kind_of_input_that_the_engine_accepts(client: PoolingClient) -> None:
    spec = PoolSpec("max", kernel=2)
    x = RNG.standard_normal((2, 3, 8, 8))
    expected = pooling_engine.forward(x, spec).output
    read_only = x.copy()
    read_only.flags.writeable = False
    for same in (read_only, x.astype(">f8"), np.asfortranarray(x), x.tolist()):
        assert_same(client.forward(same, spec).output, expected)
    assert client.forward(x[:0], spec).output.shape == (0, 3, 4, 4)


X, DY = np.ones((1, 1, 4, 4), np.float32), np.ones((1, 1, 2, 2), np.float32)
MAX, AVERAGE = PoolSpec("max", 2), PoolSpec("average", 2)
MISTAKES: dict[str, tuple[type[Exception], Callable[[Any], Any]]] = {
    "rank": (InvalidSpecError, lambda it: it.forward(X, PoolSpec("max", (2, 2, 2)))),
    "no output": (InvalidSpecError, lambda it: it.forward(X, PoolSpec("max", 5))),
    "shape": (InvalidTensorError, lambda it: it.forward(X[0, 0], MAX)),
    "complex": (InvalidTensorError, lambda it: it.forward(X.astype("complex64"), MAX)),
    "strings": (InvalidTensorError, lambda it: it.forward(np.full((1, 1, 2, 2), "a"), MAX)),
    "ragged": (InvalidTensorError, lambda it: it.forward([[1, 2], [3]], MAX)),
    "norm of integers": (
        InvalidTensorError,
        lambda it: it.forward(X.astype("int32"), PoolSpec("lp", 2)),
    ),
    "integer gradient": (
        InvalidTensorError,
        lambda it: it.backward(DY.astype("int8"), MAX, input=X.astype("int8")),
    ),
    "kernel": (
        UnsupportedError,
        lambda it: it.forward(np.ones((1, 1, 140000)), PoolSpec("max", 66000, 1)),
    ),
    "NaN": (
        InvalidTensorError,
        lambda it: it.forward(X * np.nan, PoolSpec("max", 2, nan_policy="error")),
    ),
    "overflow": (
        InvalidTensorError,
        lambda it: it.forward(np.full((1, 1, 2), 2**62), PoolSpec("sum", 2)),
    ),
    "format": (
        InvalidSpecError,
        lambda it: it.forward(X, MAX, return_indices=True, index_format="atlas"),
    ),
    "average's indices": (
        InvalidSpecError,
        lambda it: it.forward(X, AVERAGE, return_indices=True),
    ),
    "out": (InvalidTensorError, lambda it: it.forward(X, MAX, out=X)),
    "a mode instead of a spec": (InvalidSpecError, lambda it: it.forward(X, "max")),
    "options instead of a spec": (InvalidSpecError, lambda it: it.forward(X, {"mode": "max"})),
    "no spec": (InvalidSpecError, lambda it: it.backward(DY, None, input_shape=X.shape)),
    "return_indices": (InvalidSpecError, lambda it: it.forward(X, MAX, return_indices="no")),
    "indices of another shape": (
        InvalidTensorError,
        lambda it: it.backward(DY, MAX, input_shape=X.shape, indices=np.zeros(3, np.uint8)),
    ),
    **{
        f"indices of {dtype}": (
            InvalidTensorError,
            lambda it, dtype=dtype: it.backward(
                DY, MAX, input_shape=X.shape, indices=np.zeros(DY.shape, dtype)
            ),
        )
        for dtype in ("bool", "int32", "float32", "complex64", "uint64")
    },
    "a transposed out": (
        InvalidTensorError,
        lambda it: it.forward(X, MAX, out=np.empty((2, 2, 1, 1), np.float32).T),
    ),
    "no shape": (InvalidTensorError, lambda it: it.backward(DY, AVERAGE)),
    "no indices": (InvalidTensorError, lambda it: it.backward(DY, MAX, input_shape=X.shape)),
    "wrong shape": (InvalidTensorError, lambda it: it.backward(X, AVERAGE, input_shape=X.shape)),
    "invalid index": (
        InvalidTensorError,
        lambda it: it.backward(
            DY, MAX, input_shape=X.shape, indices=np.full(DY.shape, 9, np.uint8)
        ),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_an_invalid_call_raises_the_error_of_the_engine(client: PoolingClient, name: str) -> None:
    class_, mistake = MISTAKES[name]
    with pytest.raises(class_) as local:
        mistake(pooling_engine)
    with pytest.raises(class_) as remote:
        mistake(client)
    assert type(remote.value) is type(local.value)
    assert str(remote.value) == str(local.value)
    assert remote.value.field == local.value.field  # type: ignore[attr-defined]
    assert client.forward(X, MAX).output.shape == (1, 1, 2, 2)


GLOBAL = PoolSpec("max", global_window=True)  # it cannot be split into row bands


def test_the_error_names_the_limit_of_the_server() -> None:
    server = PoolingServer(ServerConfig(listen="127.0.0.1:0", max_tensor_bytes=4096))
    server.start()
    try:
        with PoolingClient(server.address) as client, pytest.raises(TensorTooLargeError) as caught:
            client.forward(np.ones((1, 1, 64, 64), np.float32), GLOBAL)
        assert "limit is 4096 (--max-tensor-bytes)" in str(caught.value)
        assert caught.value.facts["limit"] == "max_tensor_bytes"
    finally:
        server.stop()


def test_a_message_that_grpc_itself_rejects_names_the_option() -> None:
    """Far over the limit, gRPC rejects a message without error details."""
    server = PoolingServer(ServerConfig(listen="127.0.0.1:0", max_message_bytes=1 << 20))
    server.start()
    try:
        with PoolingClient(server.address) as client:
            with pytest.raises(TensorTooLargeError, match="--max-message-bytes"):
                client.forward(np.ones((1, 1, 1024, 1024), np.float32), GLOBAL)
            assert client.forward(X, MAX).output.shape == (1, 1, 2, 2)
    finally:
        server.stop()


def test_the_work_of_a_call_is_limited() -> None:
    server = PoolingServer(ServerConfig(listen="127.0.0.1:0", max_taps=1000))
    server.start()
    try:
        with PoolingClient(server.address) as client:
            assert client.forward(np.ones((1, 1, 32)), PoolSpec("max", 10, 1)).output.size == 23
            with pytest.raises(TensorTooLargeError, match=r"visits of window elements.*--max-taps"):
                client.forward(np.ones((1, 1, 200)), PoolSpec("max", 10, 1))
    finally:
        server.stop()


def test_info_describes_the_server(client: PoolingClient) -> None:
    info = client.info()
    assert tuple(backend.name for backend in info.backends) == available_backends()
    assert set(info.backends[-1].modes) == set(pooling_engine.Mode)
    assert info.limits.max_message_bytes == 32 << 20


@pytest.mark.parametrize("options", [{"timeout": 1.0}, {"wait_for_ready": False}])
def test_without_a_server_a_call_is_unavailable_within_the_deadline(
    options: dict[str, Any],
) -> None:
    target = f"127.0.0.1:{quiet_port()}"
    with PoolingClient(target, **options) as client, pytest.raises(UnavailableError) as caught:
        client.forward(X, MAX)
    assert str(caught.value).startswith(f"no server answers at {target}")
    assert "attempts in" in str(caught.value)


def test_the_deadline_holds_for_a_silent_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = "{}:{}".format(*silent.getsockname())
        with PoolingClient(target) as client, pytest.raises(DeadlineError, match="in time"):
            client.forward(X, MAX, timeout=0.3)


def test_a_call_is_retried_until_the_server_has_started() -> None:
    """The first attempts find a closed port; a retry reaches the server."""
    port = quiet_port()
    servers: list[PoolingServer] = []

    def start_late() -> None:
        server = PoolingServer(ServerConfig(listen=f"127.0.0.1:{port}"))
        server.start()
        servers.append(server)

    with PoolingClient(f"127.0.0.1:{port}", timeout=LIMIT_S) as client:
        outcomes = []
        late = threading.Timer(0.5, start_late)
        late.start()
        for _ in range(20):
            try:
                outcomes.append(client.forward(X, MAX).output.shape)
                break
            except UnavailableError:
                continue
        late.join()
    servers[0].stop()
    assert outcomes == [(1, 1, 2, 2)]


def test_a_call_that_a_server_cancels_is_retried() -> None:
    """gRPC cancels calls that arrive while a server stops."""
    expected = pooling_engine.forward(X, MAX)
    sizes: list[int] = []

    def answer(request: bytes, context: Any) -> bytes:
        sizes.append(len(request))
        if len(sizes) == 1:
            context.abort(grpc.StatusCode.CANCELLED, "")
        return pooling_wire.FORWARD.encode_response(expected)

    server = grpc.server(ThreadPoolExecutor(1))
    handlers = {"Forward": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(pooling_wire.SERVICE_NAME, handlers),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with PoolingClient(f"127.0.0.1:{port}", timeout=LIMIT_S) as client:
        assert_same(client.forward(X, MAX).output, expected.output)
    assert len(sizes) == 2
    server.stop(None).wait()


def test_threads_share_a_client(client: PoolingClient) -> None:
    spec = SPECS["max"]
    inputs = [RNG.standard_normal((2, 3, 20 + i, 20)) for i in range(8)]
    results: list[Any] = [None] * len(inputs)

    def call(i: int) -> None:
        results[i] = client.forward(inputs[i], spec).output

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    for x, result in zip(inputs, results, strict=True):
        assert_same(result, pooling_engine.forward(x, spec).output)


def test_the_asyncio_client_mirrors_the_engine(server: PoolingServer) -> None:
    spec, x = SPECS["max"], RNG.standard_normal((2, 3, 9, 8))

    async def calls() -> None:
        async with AsyncPoolingClient(server.address) as client:
            results = await asyncio.gather(
                *(client.forward(x + i, spec, return_indices=True) for i in range(5))
            )
            for i, result in enumerate(results):
                assert_same(result.output, pooling_engine.forward(x + i, spec).output)
            dx = await client.backward(
                results[0].output, spec, input_shape=x.shape, indices=results[0].indices
            )
            assert_same(dx, pooling_engine.backward(results[0].output, spec, input=x))
            assert (await client.info()).backends[-1].name == "numpy"
            with pytest.raises(InvalidTensorError, match="index at"):
                await client.backward(
                    DY, MAX, input_shape=X.shape, indices=np.full(DY.shape, 9, np.uint8)
                )

    asyncio.run(calls())


@pytest.mark.parametrize("connections", [0, -1, 1.5, "2"])
def test_an_invalid_number_of_connections_is_rejected(connections: Any) -> None:
    with pytest.raises(InvalidSpecError, match="it must be an integer of at least 1"):
        PoolingClient(connections=connections)


def test_the_asyncio_client_works_with_several_connections(server: PoolingServer) -> None:
    async def versions() -> list[str]:
        async with AsyncPoolingClient(server.address, connections=2) as client:
            return [(await client.info()).version for _ in range(4)]

    assert len(set(asyncio.run(versions()))) == 1


@pytest.mark.parametrize(
    "target", ["", None, 50051, "/run/pooling.sock", "./pooling.sock", "http://127.0.0.1:50051"]
)
@pytest.mark.parametrize("class_", [PoolingClient, AsyncPoolingClient])
def test_an_invalid_target_is_rejected(class_: Any, target: Any) -> None:
    with pytest.raises(InvalidSpecError, match="must be HOST:PORT or unix:/PATH") as caught:
        class_(target)
    assert caught.value.field == "target"


def test_a_progress_that_is_no_function_is_rejected(server: PoolingServer) -> None:
    wrong: Any = 5

    async def call() -> None:
        async with AsyncPoolingClient(server.address) as client:
            await client.forward(X, MAX, progress=wrong)

    with PoolingClient(server.address) as client:
        for attempt in (
            lambda: client.forward(X, MAX, progress=wrong),
            lambda: asyncio.run(call()),
        ):
            with pytest.raises(InvalidSpecError, match="progress is 5; it must be") as caught:
                attempt()
            assert caught.value.field == "progress"


def test_flags_of_numpy_are_flags(server: PoolingServer) -> None:
    yes, no = np.bool_(True), np.bool_(False)
    assert PoolSpec("max", 2, ceil_mode=no) == PoolSpec("max", 2)
    expected = pooling_engine.forward(X, MAX, return_indices=True)
    with PoolingClient(server.address) as client:
        found = client.forward(X, MAX, return_indices=yes)
        first, second = client.forward_all(X, [MAX, MAX], return_indices=[yes, no])
        both = client.forward_all(X, [MAX, MAX], return_indices=yes)
    for result in (found, first, *both):
        assert_same(result.indices, expected.indices)
    assert second.indices is None


@pytest.mark.parametrize("timeout", [0, -1, 0.0])
@pytest.mark.parametrize("options", [{}, {"shared_streams": False}])
def test_a_call_without_time_is_not_sent(
    server: PoolingServer, options: dict[str, Any], timeout: float
) -> None:
    async def call() -> None:
        async with AsyncPoolingClient(server.address, **options) as client:
            await client.forward(X, MAX, timeout=timeout)

    async def stream() -> None:
        async with AsyncPoolingClient(server.address, **options) as client:
            async for _ in client.forward_many([ForwardCall(X, MAX)], timeout=timeout):
                pass

    with PoolingClient(server.address, **options) as client:
        for attempt in (
            lambda: client.forward(X, MAX, timeout=timeout),
            lambda: client.info(timeout=timeout),
            lambda: list(client.forward_many([ForwardCall(X, MAX)], timeout=timeout)),
            lambda: asyncio.run(call()),
            lambda: asyncio.run(stream()),
        ):
            with pytest.raises(DeadlineError, match=r"in time$"):
                attempt()


@pytest.mark.parametrize("timeout", ["5", float("nan"), [1], True])
def test_a_timeout_that_is_not_a_number_is_rejected(server: PoolingServer, timeout: Any) -> None:
    async def call_with_timeout() -> None:
        async with AsyncPoolingClient(server.address) as client:
            await client.forward(X, MAX, timeout=timeout)

    with PoolingClient(server.address) as client:
        for call in (
            lambda: PoolingClient(server.address, timeout=timeout),
            lambda: client.forward(X, MAX, timeout=timeout),
            lambda: client.info(timeout=timeout),
            lambda: list(client.forward_many([], timeout=timeout)),
            lambda: asyncio.run(call_with_timeout()),
        ):
            with pytest.raises(InvalidSpecError, match=r"timeout is .* must be a number") as caught:
                call()
            assert caught.value.field == "timeout"


@pytest.mark.parametrize("timeout", [float("inf"), 1e30])
def test_a_timeout_may_be_infinite(server: PoolingServer, timeout: float) -> None:
    large = np.ones((1, 1, 1024, 1024), np.float64)  # it is split and streamed

    async def call() -> None:
        async with AsyncPoolingClient(server.address, timeout=timeout) as client:
            assert (await client.forward(X, MAX)).output.max() == 1
            assert (await client.forward(large, MAX)).output.max() == 1

    asyncio.run(call())
    with PoolingClient(server.address, timeout=timeout) as client:
        assert client.forward(large, MAX).output.max() == 1
        calls = [ForwardCall(X, MAX)] * 2
        results = [client.forward(X, MAX), *client.forward_many(calls, timeout=timeout)]
    assert all(result.output.max() == 1 for result in results)


def test_a_closed_client_raises_value_error(server: PoolingServer) -> None:
    async def closed() -> None:
        async with AsyncPoolingClient(server.address) as client:
            await client.info()
        for call in (client.info, lambda: client.forward(X, MAX), lambda: large(client)):
            with pytest.raises(ValueError, match=r"^the client is closed$"):
                await call()
        with pytest.raises(ValueError, match=r"^the client is closed$"):
            await anext(client.forward_many([ForwardCall(X, MAX)]))
        await client.close()

    def large(client: Any) -> Any:
        return client.forward(np.ones((1, 1, 1024, 1024)), MAX)

    asyncio.run(closed())
    with PoolingClient(server.address) as client:
        client.info()
    for _ in range(2):
        for call in (
            client.info,
            lambda: client.forward(X, MAX),
            lambda: large(client),
            lambda: next(client.forward_many([ForwardCall(X, MAX)])),
        ):
            with pytest.raises(ValueError, match=r"^the client is closed$"):
                call()
    client.close()
