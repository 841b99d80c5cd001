"""Bearer tokens: missing, wrong, revoked, over their rate; unary calls and streams."""

from __future__ import annotations

import hashlib
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from pooling_engine import OverloadedError
from pooling_server import PoolingServer, ServerConfig
from pooling_server.security import files, tokens
from pooling_wire.v1 import pooling_pb2 as pb
from pooling_wire.v1 import pooling_pb2_grpc
from tests.server.support import details_of
from tests.support.processes import process
from tests.support.requests import forward
from tests.support.waiting import LIMIT_S, wait_until

TOKEN = "0123456789abcdef-test-token"
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


def line(token: str, name: str = "alice", options: str = "") -> str:
    return f"{name} {hashlib.sha256(token.encode()).hexdigest()} {options}\n"


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text("# tokens\n\n" + line(TOKEN))
    return path


@pytest.fixture(params=[True, False], ids=["inline", "threads"])
def server(
    request: pytest.FixtureRequest, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PoolingServer]:
    monkeypatch.setattr(files, "INTERVAL_S", 0.02)
    config = ServerConfig(
        listen="127.0.0.1:0",
        backend="numpy",
        token_file=str(token_file),
        inline_calls=request.param,
    )
    server = PoolingServer(config)
    server.start()
    yield server
    assert server.stop()


@pytest.fixture
def stub(server: PoolingServer) -> Iterator[Any]:
    with grpc.insecure_channel(server.address) as channel:
        yield pooling_pb2_grpc.PoolingServiceStub(channel)


METHODS: dict[str, Callable[[Any, Any], Any]] = {
    "Forward": lambda stub, metadata: stub.Forward(forward(), metadata=metadata),
    "GetPlan": lambda stub, metadata: stub.GetPlan(
        pb.GetPlanRequest(
            spec=forward().spec, input_shape=[1, 1, 4, 4], element_type=forward().input.element_type
        ),
        metadata=metadata,
    ),
    "GetServerInfo": lambda stub, metadata: stub.GetServerInfo(
        pb.GetServerInfoRequest(), metadata=metadata
    ),
    "ForwardStream": lambda stub, metadata: list(
        stub.ForwardStream(
            iter([pb.ForwardStreamRequest(id=1, request=forward())]), metadata=metadata
        )
    ),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_known_token_is_accepted(stub: Any, method: str) -> None:
    METHODS[method](stub, bearer(TOKEN))
    METHODS[method](stub, (("authorization", f"bearer  {TOKEN}"),))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ((), "needs a token"),
        ((("authorization", f"Basic {TOKEN}"),), "needs a token"),
        ((("authorization", "Bearer "),), "needs a token"),
        (bearer(TOKEN) * 2, "needs a token"),
        (bearer("wrong"), "not known"),
        (bearer(hashlib.sha256(TOKEN.encode()).hexdigest()), "not known"),
    ],
    ids=["none", "other scheme", "empty", "two", "wrong", "its hash"],
)
def test_a_missing_or_wrong_token_is_rejected(
    stub: Any, method: str, metadata: Any, text: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        METHODS[method](stub, metadata)
    error = caught.value
    assert error.code() is UNAUTHENTICATED
    assert text in error.details()
    assert TOKEN not in error.details()
    assert details_of(error)["ErrorInfo"].reason == "UNAUTHENTICATED"


def test_a_revoked_token_is_denied(stub: Any, token_file: Path) -> None:
    token_file.write_text(line(TOKEN, options="revoked") + line("other", "bob"))
    wait_until(lambda: code_of(stub, TOKEN) is not None)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Forward(forward(), metadata=bearer(TOKEN))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert details_of(caught.value)["ErrorInfo"].reason == "PERMISSION_DENIED"
    stub.Forward(forward(), metadata=bearer("other"))


def code_of(stub: Any, token: str) -> grpc.StatusCode | None:
    try:
        stub.Forward(forward(), metadata=bearer(token))
    except grpc.RpcError as error:
        return error.code()
    return None


class Stream:
    """A stream whose items are sent one at a time."""

    def __init__(self, stub: Any, token: str) -> None:
        self._items: queue.SimpleQueue[pb.ForwardStreamRequest | None] = queue.SimpleQueue()
        self.call = stub.ForwardStream(iter(self._items.get, None), metadata=bearer(token))

    def answer(self) -> Any:
        self._items.put(pb.ForwardStreamRequest(id=1, request=forward()))
        return next(self.call)

    def close(self) -> None:
        self._items.put(None)


def test_a_token_that_is_removed_ends_a_stream(stub: Any, token_file: Path) -> None:
    stream = Stream(stub, TOKEN)
    assert stream.answer().WhichOneof("result") == "response"
    token_file.write_text(line("other", "bob"))
    wait_until(lambda: code_of(stub, TOKEN) is UNAUTHENTICATED)
    with pytest.raises(grpc.RpcError) as caught:
        stream.answer()
    assert caught.value.code() is UNAUTHENTICATED
    assert details_of(caught.value)["ErrorInfo"].reason == "UNAUTHENTICATED"
    stream.close()


@pytest.mark.parametrize("content", ["alice secret\n", None])
def test_an_unusable_new_file_leaves_the_previous_tokens_in_use(
    stub: Any, token_file: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    token_file.unlink() if content is None else token_file.write_text(content)
    wait_until(lambda: caplog.records)
    (record,) = caplog.records
    assert "the previous content stays in use" in record.getMessage()
    assert "secret" not in record.getMessage()
    assert code_of(stub, TOKEN) is None


def test_a_token_over_its_rate_is_told_when_to_retry(stub: Any, token_file: Path) -> None:
    token_file.write_text(line(TOKEN, options="calls_per_s=0.01") + line("new", "bob"))
    wait_until(lambda: code_of(stub, "new") is None)
    assert code_of(stub, TOKEN) is None
    with pytest.raises(grpc.RpcError) as caught:
        stub.Forward(forward(), metadata=bearer(TOKEN))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    details = details_of(caught.value)
    assert details["ErrorInfo"].reason == "OVERLOADED"
    assert 90 < details["RetryInfo"].retry_delay.seconds <= 100
    pushback = dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"]
    assert 90_000 < int(pushback) <= 100_000
    assert code_of(stub, "new") is None


def test_rates_of_stream_items_are_errors_of_the_items(stub: Any, token_file: Path) -> None:
    token_file.write_text(line(TOKEN, options="bytes_per_s=1") + line("new", "bob"))
    wait_until(lambda: code_of(stub, "new") is None)
    stream = Stream(stub, TOKEN)
    assert stream.answer().WhichOneof("result") == "response"  # overdraws the bucket
    assert stream.answer().error.reason == "OVERLOADED"
    stream.close()
    assert list(stream.call) == []


class Clock:
    """Replacement of `time` in `tokens`."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_a_rate_refills_and_a_burst_is_a_second_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(tokens, "time", clock)
    rates = tokens.Rates(tokens.Token("alice", b"", calls_per_s=2.0))

    def admitted() -> int:
        count = 0
        while True:
            try:
                rates.count_call()
            except OverloadedError:
                return count
            count += 1

    assert admitted() == 2
    clock.now += 0.5
    assert admitted() == 1
    clock.now += 100
    assert admitted() == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alice secret-token", "line 1 of token_file .* must be NAME SHA256-HEX"),
        ("alice", "line 1 of token_file .* must be NAME SHA256-HEX"),
        (f"# c\n{line(TOKEN, 'a/b')}", "line 2 of token_file"),
        (line(TOKEN, options="calls=5"), "has the option 'calls=5'"),
        (line(TOKEN, options="calls_per_s=0"), "calls_per_s in line 1 .* number above 0"),
        (line(TOKEN, options="bytes_per_s=x"), "bytes_per_s in line 1 .* number above 0"),
    ],
)
def test_invalid_files_are_rejected_by_line(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(ValueError, match=expected) as caught:
        tokens.Tokens(path)
    assert TOKEN not in str(caught.value)


def test_an_unreadable_file_ends_the_start_with_one_line(tmp_path: Path) -> None:
    flags = ["--listen", "127.0.0.1:0", "--token-file", str(tmp_path / "none")]
    done = subprocess.run(
        [sys.executable, "-m", "pooling_server", "--backend", "numpy", *flags],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    expected = f"error: token_file {tmp_path / 'none'} cannot be read: No such file or directory\n"
    assert (done.returncode, done.stderr) == (1, expected)


def test_every_worker_checks_tokens_and_logs_no_secret(token_file: Path) -> None:
    flags = ["--backend", "numpy", "--no-warm-up", "--listen", "127.0.0.1:0", "--workers", "2"]
    flags += ["--token-file", str(token_file), "--log-level", "debug"]
    with process(*flags) as (running, banner):
        address = banner.split(" listening on ")[1].partition(",")[0]
        for _ in range(8):  # the kernel distributes connections among the workers
            options = [("grpc.use_local_subchannel_pool", 1)]
            with grpc.insecure_channel(address, options) as channel:
                stub = pooling_pb2_grpc.PoolingServiceStub(channel)
                assert code_of(stub, "wrong-secret") is UNAUTHENTICATED
                assert code_of(stub, TOKEN) is None
        running.terminate()
        _, log = running.communicate(timeout=LIMIT_S)
    assert "UNAUTHENTICATED" in log
    assert TOKEN not in log
    assert "wrong-secret" not in log
