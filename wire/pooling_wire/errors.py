"""Errors on the wire: one table of error classes and gRPC statuses, used in both directions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError

import pooling_engine
from pooling_engine import (
    DeadlineError,
    DeviceMemoryError,
    InternalError,
    InvalidSpecError,
    InvalidTensorError,
    OverloadedError,
    PermissionDeniedError,
    PoolingError,
    TensorTooLargeError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from pooling_wire.foreign import foreign_error
from pooling_wire.v1 import pooling_pb2 as pb

try:
    from google.rpc import error_details_pb2, status_pb2
except ImportError:  # a status then has its code and its text, but no details
    status_pb2 = None

DOMAIN = "pooling.v1"
DETAILS_KEY = "grpc-status-details-bin"
PUSHBACK_KEY = "grpc-retry-pushback-ms"  # a delay for gRPC's own retries; negative: do not retry

STATUS_CODES: dict[type[PoolingError], grpc.StatusCode] = {
    InvalidSpecError: grpc.StatusCode.INVALID_ARGUMENT,
    InvalidTensorError: grpc.StatusCode.INVALID_ARGUMENT,
    UnsupportedError: grpc.StatusCode.UNIMPLEMENTED,
    TensorTooLargeError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeviceMemoryError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
    DeadlineError: grpc.StatusCode.DEADLINE_EXCEEDED,
    PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    InternalError: grpc.StatusCode.INTERNAL,
}
_CLASSES = {error.reason: error for error in STATUS_CODES}

# The path in a request of each argument of the engine.
_PATHS = {
    "mode": "spec.mode",
    "kernel": "spec.sliding_windows.axes",
    "padding": "spec.sliding_windows.named_padding",
    "ceil_mode": "spec.sliding_windows.ceil_mode",
    "adaptive_output": "spec.adaptive_windows.output_sizes",
    "global_window": "spec.global_window",
    "layout": "spec.layout",
    "count_include_pad": "spec.count_include_pad",
    "divisor_override": "spec.divisor_override",
    "norm_p": "spec.norm_p",
    "tie_policy": "spec.tie_policy",
    "nan_policy": "spec.nan_policy",
}
_AXIS_PATHS = {
    "kernel": "spec.sliding_windows.axes[{}].kernel",
    "stride": "spec.sliding_windows.axes[{}].stride",
    "dilation": "spec.sliding_windows.axes[{}].dilation",
    "padding": "spec.sliding_windows.axes[{}].{}",
    "adaptive_output": "spec.adaptive_windows.output_sizes[{}]",
}
_SIDES = ("padding_before", "padding_after")
_ARGUMENT = re.compile(r"(\w+)(?:\[(\d+)\](?:\[([01])\])?)?")

_missing = {getattr(pooling_engine, name) for name in dir(pooling_engine) if name.endswith("Error")}
_missing -= {PoolingError, *STATUS_CODES}
if _missing:
    raise AssertionError(f"errors without a status: {_missing}")


class RequestPath(str):
    """Path in a request as the client wrote it, for the `field` of an error."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Status:
    """A gRPC status.

    Attributes:
        code: status code.
        message: text for people.
        details: serialised google.rpc.Status; empty without googleapis-common-protos.
    """

    code: grpc.StatusCode
    message: str
    details: bytes


def encode_error(error: PoolingError) -> Status:
    """Return the status of an error, with ErrorInfo and, if applicable, BadRequest or RetryInfo."""
    field, facts = error.field, tuple(error.facts.items())
    return _encoded(error.reason, str(error), field, isinstance(field, RequestPath), facts)


@lru_cache(maxsize=64)  # an overloaded server sends the same few statuses all the time
def _encoded(
    reason: str, text: str, field: str, is_path: bool, facts: tuple[tuple[str, str], ...]
) -> Status:
    error_class = _CLASSES[reason]
    path = RequestPath(field) if is_path else str(field)
    error = error_class(text, field=path, facts=dict(facts))
    code = STATUS_CODES[error_class]
    return Status(code, text, _details_of(error, code) if status_pb2 else b"")


def error_details(error: PoolingError) -> list[Any]:
    """Return the details of an error: ErrorInfo and, if applicable, BadRequest or RetryInfo.

    Without googleapis-common-protos, there are none.
    """
    if not status_pb2:
        return []
    message, code = str(error), STATUS_CODES[type(error)]
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.facts)
    details = [info]
    if error.field:
        info.metadata["field"] = error.field
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        bad = error_details_pb2.BadRequest()
        bad.field_violations.add(field=field_path(error.field), description=message)
        details.append(bad)
    if isinstance(error, OverloadedError):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(float(error.facts["retry_after_s"]) * 1e9))
        details.append(retry)
    packed = [Any() for _ in details]
    for each, detail in zip(packed, details, strict=True):
        each.Pack(detail)
    return packed


def _details_of(error: PoolingError, code: grpc.StatusCode) -> bytes:
    status = status_pb2.Status(code=code.value[0], message=str(error), details=error_details(error))
    details: bytes = status.SerializeToString()
    return details


def decode_error(error: grpc.RpcError, target: str) -> PoolingError:
    """Return the error of a failed call, of the class that the server raised.

    A status of gRPC itself, a proxy or a gateway becomes the class that fits best. The delay of
    google.rpc.RetryInfo or of `PUSHBACK_KEY` becomes the fact ``retry_after_s``.

    Args:
        error: the error of gRPC.
        target: address of the server, for the text.
    """
    text = error.details() or ""
    metadata = dict(tuple(_pairs(error)))  # grpc.aio's metadata of some versions is a mapping
    info, retry_after_s = _details(metadata.get(DETAILS_KEY))
    if info is not None:
        facts = dict(info.metadata)
        return _CLASSES[info.reason](text, field=facts.pop("field", ""), facts=facts)
    foreign = foreign_error(error.code(), text, target)
    pushback_ms = str(metadata.get(PUSHBACK_KEY, ""))
    if retry_after_s is None and pushback_ms.isdigit():
        retry_after_s = int(pushback_ms) / 1000
    if pushback_ms.startswith("-"):
        foreign.facts["retryable"] = "false"
    elif retry_after_s is not None:
        foreign.facts["retry_after_s"] = str(retry_after_s)
    return foreign


def encode_stream_error(error: PoolingError) -> pb.StreamError:
    """Return the message of an error of one stream item; its content is that of `encode_error`."""
    message = pb.StreamError(
        code=STATUS_CODES[type(error)].value[0],
        message=str(error),
        reason=error.reason,
        field=field_path(error.field),
        metadata=error.facts,
    )
    if error.field:
        message.metadata["field"] = error.field
    return message


def decode_stream_error(message: pb.StreamError) -> PoolingError:
    """Return the error of one stream item, of the class that the server raised."""
    facts = dict(message.metadata)
    class_ = _CLASSES.get(message.reason, InternalError)
    return class_(message.message, field=facts.pop("field", ""), facts=facts)


def _pairs(error: grpc.RpcError) -> Iterable[tuple[str, str | bytes]]:
    return error.trailing_metadata() or ()  # type: ignore[return-value]


def _details(data: bytes | str | None) -> tuple[error_details_pb2.ErrorInfo | None, float | None]:
    """Return our ErrorInfo and the delay of RetryInfo, in seconds, of a serialised status."""
    found, delay_s = None, None
    if not isinstance(data, bytes) or not status_pb2:
        return found, delay_s
    try:
        details = status_pb2.Status.FromString(data).details
    except DecodeError:
        return found, delay_s
    for detail in details:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == DOMAIN and info.reason in _CLASSES:
            found = info
        elif detail.Unpack(retry):
            delay_s = retry.retry_delay.ToNanoseconds() / 1e9
    return found, delay_s


def field_path(field: str) -> str:
    """Return the path in a request of an engine argument such as ``padding[1][0]``.

    Other texts are returned unchanged: a `RequestPath`, a path with a dot, or a name that a client
    has made up.
    """
    found = None if isinstance(field, RequestPath) else _ARGUMENT.fullmatch(field)
    if found is None:
        return field
    name, *numbers = filter(None, found.groups())
    if not numbers:
        return _PATHS.get(name, field)
    side = _SIDES[int(numbers[1])] if len(numbers) > 1 else _SIDES[0]
    return _AXIS_PATHS[name].format(numbers[0], side) if name in _AXIS_PATHS else field
