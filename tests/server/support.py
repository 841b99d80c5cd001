"""Helpers of the server tests: request messages, expected errors, a gate for computations."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

from pooling_server import PoolingServer
from pooling_server.serving.servicer import PoolingServicer
from pooling_wire.v1 import pooling_pb2 as pb
from tests.support.waiting import LIMIT_S, wait_until


class Rejection(NamedTuple):
    """Status code and stable reason of an error."""

    code: grpc.StatusCode
    reason: str


BAD_SPEC = Rejection(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SPEC")
BAD_TENSOR = Rejection(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_TENSOR")
UNSUPPORTED = Rejection(grpc.StatusCode.UNIMPLEMENTED, "UNSUPPORTED")
TOO_LARGE = Rejection(grpc.StatusCode.RESOURCE_EXHAUSTED, "TENSOR_TOO_LARGE")


def tensor(
    sizes: tuple[int, ...] = (1, 1, 4, 4), dtype: str = "float32", **changes: Any
) -> pb.Tensor:
    """Return a tensor message of ones, with some fields replaced."""
    number = pb.ElementType.Value(f"ELEMENT_TYPE_{dtype.upper()}")
    message = pb.Tensor(element_type=number, shape=sizes, data=np.ones(sizes, dtype).tobytes())
    return changed(message, changes)


def positions(*values: int) -> pb.Tensor:
    """Return four int64 plane indices."""
    return tensor((1, 1, 2, 2), "int64", data=np.array(values, "<i8").tobytes())


def window(**changes: Any) -> pb.Window:
    return changed(pb.Window(kernel=2), changes)


def sliding(
    axes: int = 2, ceil_mode: bool = False, named: int = 0, **changes: Any
) -> dict[str, Any]:
    """Return the windows of a spec: one record per axis, with changes in the last."""
    records = [window() for _ in range(axes - 1)] + [window(**changes)]
    return {
        "sliding_windows": pb.SlidingWindows(axes=records, ceil_mode=ceil_mode, named_padding=named)
    }


def adaptive(*sizes: int) -> dict[str, Any]:
    return {"adaptive_windows": pb.AdaptiveWindows(output_sizes=sizes)}


def spec(
    mode: int = pb.MODE_MAX, windows: dict[str, Any] | None = None, **options: Any
) -> pb.PoolSpec:
    return pb.PoolSpec(mode=mode, **(sliding() if windows is None else windows), **options)


def forward(**changes: Any) -> pb.ForwardRequest:
    return changed(pb.ForwardRequest(spec=spec(), input=tensor()), changes)


def backward(**changes: Any) -> pb.BackwardRequest:
    request = pb.BackwardRequest(
        spec=spec(),
        input_shape=(1, 1, 4, 4),
        indices=tensor((1, 1, 2, 2), "uint8"),
        output_gradient=tensor((1, 1, 2, 2)),
    )
    return changed(request, changes)


def changed(message: Any, changes: dict[str, Any]) -> Any:
    """Replace fields of the message; None clears a field."""
    for name, value in changes.items():
        message.ClearField(name)
        if value is None:
            continue
        if hasattr(value, "CopyFrom"):
            getattr(message, name).CopyFrom(value)
        elif isinstance(value, tuple):
            getattr(message, name).extend(value)
        else:
            setattr(message, name, value)
    return message


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
    """Holds the computation of every call until it is opened; counts the calls computed."""

    def __init__(self) -> None:
        self.computed = 0
        self.compute = PoolingServicer.forward
        self._entered = threading.Semaphore(0)
        self._open = threading.Event()

    def forward(self, servicer: PoolingServicer, request: bytes, *regions: Any) -> bytes:
        self._entered.release()
        assert self._open.wait(LIMIT_S)
        self.computed += 1
        return self.compute(servicer, request, *regions)

    def wait_entered(self) -> None:
        assert self._entered.acquire(timeout=LIMIT_S)

    def was_entered(self) -> bool:
        return self._entered.acquire(blocking=False)

    def open(self) -> None:
        self._open.set()


def wait_for_in_flight(server: PoolingServer, count: int) -> None:
    """Wait until exactly `count` calls are waiting or running."""
    executor = server.executor
    wait_until(lambda: executor.in_flight == count, f"there are never {count} calls in flight")
