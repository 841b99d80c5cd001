"""Helpers of the server tests: request messages, expected errors, a gate for computations."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

import pooling_engine
from pooling_server import PoolingServer
from pooling_server.observability.metrics import Metrics
from pooling_server.serving.byte_budget import ByteBudget
from pooling_server.serving.rpcs import Rpc, Rpcs, Work
from tests.support.requests import forward
from tests.support.waiting import LIMIT_S, wait_until


class Rejection(NamedTuple):
    """Status code and stable reason of an error."""

    code: grpc.StatusCode
    reason: str


BAD_SPEC = Rejection(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SPEC")
BAD_TENSOR = Rejection(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_TENSOR")
UNSUPPORTED = Rejection(grpc.StatusCode.UNIMPLEMENTED, "UNSUPPORTED")
TOO_LARGE = Rejection(grpc.StatusCode.RESOURCE_EXHAUSTED, "TENSOR_TOO_LARGE")


def rpc_context(*metadata: tuple[str, str]) -> Any:
    """Return the parts of a context that an RPC reads."""
    return SimpleNamespace(invocation_metadata=lambda: metadata, peer=lambda: "test")


def work() -> Work:
    """Return a call of a client without a token, on a server without a tight budget."""
    rpcs = Rpcs(Metrics(), ByteBudget(1 << 40), None)
    return Rpc(rpcs, "Forward", rpc_context()).receive(0)


def details_of(error: grpc.RpcError) -> dict[str, Any]:
    """Return the details of a status, by the names of their types."""
    metadata = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    found = {}
    for detail in status.details:
        name = detail.type_url.rpartition(".")[2]
        message = getattr(error_details_pb2, name)()
        detail.Unpack(message)
        found[name] = message
    return found


def assert_rejected(
    call: Callable[[Any], Any], request: Any, expected: Rejection, path: str = ""
) -> str:
    """Assert status, reason and field of the error of a call; return its text."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request)
    error = caught.value
    assert error.code() is expected.code, error.details()
    details = details_of(error)
    assert details["ErrorInfo"].domain == "pooling.v1"
    assert details["ErrorInfo"].reason == expected.reason
    if expected in (BAD_SPEC, BAD_TENSOR):
        violation = details["BadRequest"].field_violations[0]
        assert violation.field == path, error.details()
        assert violation.description == error.details()
    if expected is TOO_LARGE:
        assert details["ErrorInfo"].metadata["option"].removeprefix("--") in error.details()
    return str(error.details())


def assert_serves(stub: Any) -> None:
    """Assert that the server answers a valid request."""
    reply = stub.Forward(forward(return_indices=True))
    assert list(reply.output.shape) == [1, 1, 2, 2]
    assert reply.indices.data == b"\0\0\0\0"


class Gate:
    """Replacement of `pooling_engine.run` that blocks every computation until it is opened.

    Attributes:
        computed: number of calls computed so far.
        compute: function that computes a call once the gate is open.
    """

    def __init__(self) -> None:
        self.computed = 0
        self.compute: Callable[..., Any] = pooling_engine.run
        self._entered = threading.Semaphore(0)
        self._open = threading.Event()

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self._entered.release()
        assert self._open.wait(LIMIT_S)
        self.computed += 1
        return self.compute(*arguments, **options)

    def wait_entered(self) -> None:
        """Wait until one more computation is at the gate."""
        assert self._entered.acquire(timeout=LIMIT_S)

    def was_entered(self) -> bool:
        """Return True if one more computation is at the gate."""
        return self._entered.acquire(blocking=False)

    def open(self) -> None:
        """Let all computations continue."""
        self._open.set()

    def close(self) -> None:
        """Block the next computations."""
        self._open.clear()


def wait_for_in_flight(server: PoolingServer, count: int) -> None:
    """Wait until exactly `count` calls are waiting or running."""
    executor = server.executor
    wait_until(lambda: executor.in_flight == count, f"there are never {count} calls in flight")


def wait_for_unfinished(server: PoolingServer, count: int) -> None:
    """Wait until exactly `count` calls are in flight or have a reply that is not sent yet."""
    executor = server.executor
    wait_until(lambda: executor.unfinished == count, f"there are never {count} unfinished calls")


def wait_for_regions(server: PoolingServer, count: int) -> None:
    """Wait until exactly `count` regions are leased."""
    memory = server.shared_memory
    wait_until(lambda: memory.region_count == count, f"there are never {count} leased regions")
