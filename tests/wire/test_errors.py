"""Errors as gRPC statuses, and the tables that they and the enums are in."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

import pooling_engine
import pooling_wire
from pooling_engine import InvalidSpecError, Mode, PoolingError
from pooling_wire import enums
from pooling_wire.errors import RequestPath, field_path
from pooling_wire.v1 import pooling_pb2 as pb
from tests.wire.support import CONCRETE_ERRORS, ERRORS, FakeRpcError


@pytest.mark.parametrize("class_", CONCRETE_ERRORS)
def test_round_trip(class_: type[PoolingError]) -> None:
    error = class_("what was sent", field="stride[1]", facts={"retry_after_s": "0.25"})
    sent = pooling_wire.encode_error(error)
    received = FakeRpcError(sent.code, sent.message, sent.details)
    again = pooling_wire.decode_error(received, "host:1")
    assert type(again) is class_
    assert (str(again), again.field, again.facts) == (str(error), error.field, error.facts)


def test_reasons_are_distinct() -> None:
    assert len({error.reason for error in ERRORS}) == len(ERRORS)


CODE = grpc.StatusCode
HTTP = "Received http2 header with status: "
SIZES = "Received message larger than max (5000 vs. 4096)"
FOREIGN: list[tuple[grpc.StatusCode, str, type[PoolingError], bool]] = [
    (CODE.UNAVAILABLE, "Connection refused", pooling_engine.UnavailableError, True),
    (CODE.CANCELLED, "Cancelled", pooling_engine.UnavailableError, True),
    (CODE.DEADLINE_EXCEEDED, "Deadline Exceeded", pooling_engine.DeadlineError, False),
    (CODE.UNAUTHENTICATED, "token missing", pooling_engine.UnauthenticatedError, False),
    (CODE.PERMISSION_DENIED, "RBAC: denied", pooling_engine.PermissionDeniedError, False),
    (CODE.RESOURCE_EXHAUSTED, SIZES, pooling_engine.TensorTooLargeError, False),
    (CODE.RESOURCE_EXHAUSTED, "rate limit exceeded", pooling_engine.OverloadedError, False),
    (CODE.RESOURCE_EXHAUSTED, "", pooling_engine.OverloadedError, False),
    (CODE.UNIMPLEMENTED, "Method not found!", pooling_engine.UnsupportedError, False),
    (CODE.INTERNAL, "Received RST_STREAM with error code 2", pooling_engine.UnavailableError, True),
    (CODE.INTERNAL, "internal error 0123456789ab; details", pooling_engine.InternalError, False),
    (CODE.INTERNAL, "something else", pooling_engine.UnavailableError, False),
    (CODE.UNKNOWN, "Exception calling application: x", pooling_engine.UnavailableError, False),
    (CODE.UNKNOWN, HTTP + "413", pooling_engine.TensorTooLargeError, False),
    (CODE.UNKNOWN, HTTP + "429", pooling_engine.OverloadedError, False),
    (CODE.UNKNOWN, HTTP + "431", pooling_engine.TensorTooLargeError, False),
    (CODE.UNKNOWN, HTTP + "407", pooling_engine.UnauthenticatedError, False),
    (CODE.UNKNOWN, HTTP + "502", pooling_engine.UnavailableError, True),
    (CODE.UNKNOWN, HTTP + "418", pooling_engine.UnavailableError, False),
    (
        CODE.UNKNOWN,
        "unexpected HTTP status code received from server: 413 (Request Entity Too Large)",
        pooling_engine.TensorTooLargeError,
        False,
    ),
    (CODE.UNAVAILABLE, HTTP + "503", pooling_engine.UnavailableError, True),
    (CODE.UNAUTHENTICATED, HTTP + "401", pooling_engine.UnauthenticatedError, False),
    (CODE.PERMISSION_DENIED, HTTP + "403", pooling_engine.PermissionDeniedError, False),
    (CODE.UNIMPLEMENTED, HTTP + "404", pooling_engine.UnsupportedError, False),
    (CODE.ABORTED, "conflict", pooling_engine.UnavailableError, False),
    (CODE.NOT_FOUND, "no route", pooling_engine.UnavailableError, False),
    (CODE.DATA_LOSS, "truncated", pooling_engine.UnavailableError, False),
]


@pytest.mark.parametrize(("code", "text", "class_", "is_retried"), FOREIGN)
def test_statuses_of_grpc_and_proxies(
    code: grpc.StatusCode, text: str, class_: type[PoolingError], is_retried: bool
) -> None:
    error = pooling_wire.decode_error(FakeRpcError(code, text), "host:1")
    assert type(error) is class_
    assert "host:1" in str(error)
    assert f"{code.name}: {text}" in str(error)
    if class_ is pooling_engine.UnavailableError:
        assert (error.facts.get("retryable") != "false") is is_retried


def test_a_peer_that_closes_connections_may_require_tls() -> None:
    closed = "last error: UNAVAILABLE: ipv4:127.0.0.1:1: Socket closed"
    for failed in ("connections to all backends failing", "failed to connect to all addresses"):
        error = pooling_wire.decode_error(
            FakeRpcError(CODE.UNAVAILABLE, f"{failed}; {closed}"), "h"
        )
        assert str(error).startswith("no server answers at h, which closes connections at once; it")
    lost = pooling_wire.decode_error(FakeRpcError(CODE.UNAVAILABLE, "Socket closed"), "h")
    assert "TLS" not in str(lost)


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_no_foreign_status_is_a_bug_of_this_project(code: grpc.StatusCode) -> None:
    if code is not grpc.StatusCode.OK:
        error = pooling_wire.decode_error(FakeRpcError(code, "text"), "host:1")
        assert type(error) is not pooling_engine.InternalError


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("errors resolving a.b:1: Domain name not found", pooling_wire.UNRESOLVED),
        ("Failed to create security handshaker.", pooling_wire.HANDSHAKE),
        ("Ssl handshake failed: CERTIFICATE_VERIFY_FAILED", pooling_wire.HANDSHAKE),
        ("GOAWAY received; Debug Text: too_many_pings", pooling_wire.PINGS),
    ],
)
def test_the_cause_of_a_failed_connection_is_a_fact(text: str, cause: str) -> None:
    error = pooling_wire.decode_error(FakeRpcError(CODE.UNAVAILABLE, text), "host:1")
    assert error.facts == {"cause": cause}


def test_the_delay_of_a_gateway_is_a_fact() -> None:
    retry = error_details_pb2.RetryInfo(retry_delay={"seconds": 2, "nanos": 500_000_000})
    packed = any_pb2.Any()
    packed.Pack(retry)
    details = status_pb2.Status(code=8, details=[packed]).SerializeToString()
    error = pooling_wire.decode_error(FakeRpcError(CODE.RESOURCE_EXHAUSTED, "", details), "x")
    assert error.facts == {"retry_after_s": "2.5"}


@pytest.mark.parametrize(
    ("value", "facts"),
    [("250", {"retry_after_s": "0.25"}), ("-1", {"retryable": "false"}), ("soon", {})],
)
def test_the_pushback_of_a_proxy_is_a_fact(value: str, facts: dict[str, str]) -> None:
    error = FakeRpcError(CODE.UNAVAILABLE, "busy")
    error.metadata = ((pooling_wire.PUSHBACK_KEY, value),)
    assert pooling_wire.decode_error(error, "x").facts == facts


def test_malformed_details_are_ignored() -> None:
    error = pooling_wire.decode_error(FakeRpcError(CODE.UNAVAILABLE, "gone", b"\xff"), "host:1")
    assert type(error) is pooling_engine.UnavailableError


@pytest.mark.parametrize(
    ("field", "path"),
    [
        ("mode", "spec.mode"),
        ("kernel", "spec.sliding_windows.axes"),
        ("kernel[2]", "spec.sliding_windows.axes[2].kernel"),
        ("padding", "spec.sliding_windows.named_padding"),
        ("padding[0]", "spec.sliding_windows.axes[0].padding_before"),
        ("padding[1][1]", "spec.sliding_windows.axes[1].padding_after"),
        ("adaptive_output[0]", "spec.adaptive_windows.output_sizes[0]"),
        ("input.data", "input.data"),
        ("", ""),
    ],
)
def test_arguments_are_named_by_their_path_in_the_request(field: str, path: str) -> None:
    assert field_path(field) == path
    name = path.partition("[")[0].rpartition(".")[2]
    assert not path or name in {
        field.name
        for message in pb.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
    }


@pytest.mark.parametrize(
    "path", ["more[1].spec.sliding_windows.axes[0].stride", RequestPath("padding[0][9]")]
)
def test_a_path_in_a_request_is_not_converted(path: str) -> None:
    error = pooling_wire.encode_error(InvalidSpecError("wrong", field=path))
    assert path.encode() in error.details


@pytest.mark.parametrize("name", ["x [0, 3]ers", "kernel[", "padding[0][2]", "kernel[x]", "[1][2]"])
def test_a_name_that_a_client_has_made_up_is_not_converted(name: str) -> None:
    error = pooling_wire.encode_error(InvalidSpecError("unknown", field=name))
    assert name.encode() in error.details


def test_a_missing_enum_entry_fails_at_import() -> None:
    with pytest.raises(AssertionError, match="Mode names differ"):
        enums.EnumTable({Mode.MAX: 1}, Mode, pb.Mode)
    numbers = dict(zip(Mode, (1, 2, 3, 4, 9), strict=True))
    with pytest.raises(AssertionError, match="Mode numbers differ"):
        enums.EnumTable(numbers, Mode, pb.Mode)
