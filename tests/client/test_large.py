"""Large calls are streamed in chunks: bit-identical results, clear errors, nothing left open."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import pooling_engine
from pooling_client import PoolingClient, _limits
from pooling_client._calls.base import ChunkedCall
from pooling_engine import (
    DeadlineError,
    InvalidTensorError,
    PoolSpec,
    TensorTooLargeError,
    UnavailableError,
)
from pooling_server import PoolingServer, ServerConfig
from tests.client.support import in_flight, threads_of_streams
from tests.support import cases, oracle
from tests.support.waiting import LIMIT_S, quiet_port, wait_until

X = np.random.default_rng(1).standard_normal((3, 4, 19, 16), dtype=np.float32)
MAX = PoolSpec("max", 3, 2, 1)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_limits, "CHUNK_BYTES", 600)
    monkeypatch.setattr(_limits, "STREAM_BYTES", 100)


@pytest.fixture
def own() -> Iterator[PoolingServer]:
    server = PoolingServer(ServerConfig(listen="127.0.0.1:0", threads=1))
    server.start()
    yield server
    assert server.stop(), "calls were left in flight"
    wait_until(lambda: not threads_of_streams(), "a thread of a stream is left")


WINDOWS = (
    {"kernel": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel": (2, 3), "stride": (3, 1), "dilation": 2, "padding": "same_lower"},
    {"kernel": 2, "stride": 5},
    {"adaptive_output": (7, 3)},
    {"global_window": True},
)
FORMATS = ("window", "plane", "tensor")


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("windows", WINDOWS, ids=cases.name_of)
@pytest.mark.parametrize("mode", cases.MODES[::3] + cases.MODES[1:2], ids=cases.name_of)
def test_forward_and_backward_equal_one_message(
    client: PoolingClient, mode: Any, windows: Any, layout: str
) -> None:
    options = mode | windows | {"layout": layout}
    spec = PoolSpec(**options)
    x = np.ascontiguousarray(cases.to_layout(options, X))
    selects = spec.mode in ("max", "min")
    format_ = FORMATS[len(str(options)) % 3]
    local = pooling_engine.forward(x, spec, return_indices=selects, index_format=format_)
    remote = client.forward(x, spec, return_indices=selects, index_format=format_)
    oracle.assert_same_bits(remote.output, local.output)
    dy = cases.normal(local.output.shape)
    residual: dict[str, Any] = {"input": x} if spec.mode == "lp" else {"input_shape": x.shape}
    if selects:
        np.testing.assert_array_equal(remote.indices, local.indices, strict=True)
        residual |= {"indices": remote.indices, "index_format": format_}
    expected = pooling_engine.backward(dy, spec, **residual)
    oracle.assert_same_bits(client.backward(dy, spec, **residual), expected)
    out = np.full_like(expected, np.nan)
    assert client.backward(dy, spec, **residual, out=out) is out
    oracle.assert_same_bits(out, expected)


def test_chunks_are_written_to_out_and_reported(client: PoolingClient) -> None:
    expected = pooling_engine.forward(X, MAX).output
    out, seen = np.full_like(expected, np.nan), []
    result = client.forward(
        X, MAX, out=out, progress=lambda done, total: seen.append((done, total))
    )
    assert result.output is out
    oracle.assert_same_bits(out, expected)
    done = [done for done, _ in seen]
    assert len(done) > 10
    assert done == sorted(done)
    assert {total for _, total in seen} == {X.nbytes}
    assert done[-2] > 0.99 * X.nbytes
    assert done[-1] == X.nbytes


def test_an_invalid_index_is_an_invalid_tensor_error(own: PoolingServer) -> None:
    result = pooling_engine.forward(X, MAX, return_indices=True)
    invalid = result.indices.copy()
    invalid[2, 1, 3, 3] = 99
    with PoolingClient(own.address) as client:
        with pytest.raises(InvalidTensorError, match=r"is 99; .*counted from") as caught:
            client.backward(result.output, MAX, input_shape=X.shape, indices=invalid)
        assert caught.value.field == "indices"
        client.forward(X, MAX)
    wait_until(lambda: in_flight(own) == 0, "the rejected stream is still open")


@pytest.mark.parametrize("format_", ["plane", "tensor"])
@pytest.mark.parametrize("position", [-2, -10, 0, 10**6])
def test_invalid_positions(client: PoolingClient, format_: str, position: int) -> None:
    indices = pooling_engine.forward(X, MAX, return_indices=True, index_format=format_).indices
    invalid = indices.copy()
    invalid[2, 3, 8, 7] = position
    dy = np.ones(indices.shape, np.float32)
    for side in (client, pooling_engine):
        with pytest.raises(InvalidTensorError, match="index at") as caught:
            side.backward(dy, MAX, input_shape=X.shape, indices=invalid, index_format=format_)
        assert caught.value.field == "indices"


def test_a_position_before_the_chunk_is_rejected(client: PoolingClient) -> None:
    """One before the first of the chunk: the difference is -1, which means "none"."""
    indices = pooling_engine.forward(X, MAX, return_indices=True, index_format="tensor").indices
    invalid = indices.copy()
    invalid[1, 0, 0, 0] = 4 * 19 * 16 - 1
    dy = np.ones(indices.shape, np.float32)
    with pytest.raises(InvalidTensorError, match=r"index at \(1, 0, 0, 0\) is 1215"):
        client.backward(dy, MAX, input_shape=X.shape, indices=invalid, index_format="tensor")


def test_a_rejected_nan(client: PoolingClient) -> None:
    x = X.copy()
    x[2, 2, 10, 10] = np.nan
    with pytest.raises(InvalidTensorError, match="NaN"):
        client.forward(x, PoolSpec("max", 3, nan_policy="error"))


def test_a_plane_that_fits_no_message_is_rejected() -> None:
    server = PoolingServer(ServerConfig(listen="127.0.0.1:0", max_message_bytes=1024))
    server.start()
    rejected = pytest.raises(TensorTooLargeError, match="--max-message-bytes")
    with PoolingClient(server.address) as client, rejected:
        client.forward(X, PoolSpec("max", global_window=True))
    assert server.stop()


def test_an_interrupted_call_releases_everything(own: PoolingServer) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with PoolingClient(own.address) as client:
        with pytest.raises(KeyboardInterrupt):
            client.forward(X, MAX, progress=stop)
        wait_until(lambda: in_flight(own) == 0, "the cancelled stream is still open")
        assert client.forward(X, MAX).output.shape == (3, 4, 10, 8)


def test_the_deadline_holds_for_the_whole_stream(own: PoolingServer) -> None:
    """Every reply is fast, but the caller lets the deadline pass after the first one."""
    with PoolingClient(own.address) as client:
        for timeout_s in (0.5, 5.0):  # a busy machine may need longer for the first reply
            seen: list[int] = []

            def progress(done: int, _: int, end: float = time.monotonic() + timeout_s) -> None:
                seen.append(done)  # noqa: B023  called in this round only
                wait_until(lambda: time.monotonic() > end)

            with pytest.raises(DeadlineError):
                client.forward(X, MAX, timeout=timeout_s, progress=progress)
            if seen:
                break
    assert seen
    assert max(seen) < X.nbytes


def test_a_call_is_resumed_on_the_next_server() -> None:
    """The server drains during a call, and another one takes its address."""
    port = quiet_port()
    server = PoolingServer(ServerConfig(listen=f"127.0.0.1:{port}"))
    server.start()
    servers, seen = [server], []

    def restart(done: int, total: int) -> None:
        seen.append(done)
        if len(seen) == 5:
            assert servers[0].stop()
            servers.append(PoolingServer(ServerConfig(listen=f"127.0.0.1:{port}")))
            servers[1].start()

    expected = pooling_engine.forward(X, MAX, return_indices=True)
    with PoolingClient(server.address) as client:
        result = client.forward(X, MAX, return_indices=True, progress=restart)
    oracle.assert_same_bits(result.output, expected.output)
    np.testing.assert_array_equal(result.indices, expected.indices)
    assert len(servers) == 2
    assert servers[1].stop()


def start_process(port: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pooling_server", "--backend", "numpy"]
    listen = ("--listen", f"127.0.0.1:{port}")
    return subprocess.Popen([*command, *listen], stdout=subprocess.PIPE, text=True)


def test_a_call_is_resumed_after_the_server_was_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[int] = []
    requests = ChunkedCall.requests

    def counted(call: Any) -> Iterator[Any]:
        for each in requests(call):
            taken.append(len(taken))
            yield each

    monkeypatch.setattr(ChunkedCall, "requests", counted)
    port = quiet_port()
    servers, seen = [start_process(port)], []
    assert servers[0].stdout is not None
    servers[0].stdout.readline()

    def restart(done: int, total: int) -> None:
        seen.append(done)
        if len(seen) == 5:
            full = len(seen) + _limits.CHUNK_WINDOW
            wait_until(lambda: len(taken) >= full, "the client does not fill its window")
            servers[0].kill()
            servers[0].wait()
            servers.append(start_process(port))

    try:
        with PoolingClient(f"127.0.0.1:{port}", timeout=LIMIT_S) as client:
            result = client.forward(X, MAX, progress=restart)
        oracle.assert_same_bits(result.output, pooling_engine.forward(X, MAX).output)
        assert len(servers) == 2
    finally:
        for server in servers:
            server.kill()
            server.communicate(timeout=LIMIT_S)


def test_without_a_server_a_call_is_unavailable() -> None:
    with PoolingClient("127.0.0.1:1", timeout=2) as client, pytest.raises(UnavailableError):
        client.forward(X, MAX)
