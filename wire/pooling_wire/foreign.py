"""Errors for statuses without our details: those of gRPC itself, proxies and gateways."""

from __future__ import annotations

import re
from typing import NamedTuple

import grpc

from pooling_engine import (
    DeadlineError,
    InternalError,
    InvalidTensorError,
    OverloadedError,
    PermissionDeniedError,
    PoolingError,
    TensorTooLargeError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)

# Values of the fact "cause" of an UnavailableError.
UNRESOLVED = "unresolved name"
HANDSHAKE = "TLS handshake"
PINGS = "too many pings"


class _Meaning(NamedTuple):
    """An error class with its sentence.

    Attributes:
        is_final: True if the same call would fail again.
        cause: fact of the error, if not empty.
    """

    error: type[PoolingError]
    sentence: str
    is_final: bool = False
    cause: str = ""


_UNREACHABLE = _Meaning(UnavailableError, "no server answers at {target}")
_FAILED = _Meaning(UnavailableError, "{target}, or a proxy in front of it, failed", is_final=True)
_TOO_LARGE = _Meaning(
    TensorTooLargeError,
    "a message is too large for {target}, or for a proxy in front of it "
    "(the server's option is --max-message-bytes)",
)
_LIMITED = _Meaning(
    OverloadedError, "{target}, or a rate limit in front of it, rejected the call for now"
)
_DENIED = _Meaning(PermissionDeniedError, "{target} does not permit the call")
_UNKNOWN_CALLER = _Meaning(UnauthenticatedError, "{target} requires valid credentials")

_BY_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: _Meaning(InvalidTensorError, "{target} rejected the call"),
    grpc.StatusCode.UNAVAILABLE: _UNREACHABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: _Meaning(
        DeadlineError, "{target} was connected, but did not answer in time"
    ),
    grpc.StatusCode.CANCELLED: _Meaning(UnavailableError, "the call to {target} was cancelled"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: _LIMITED,
    grpc.StatusCode.UNIMPLEMENTED: _Meaning(
        UnsupportedError, "{target} does not implement this call of pooling.v1.PoolingService"
    ),
    grpc.StatusCode.UNAUTHENTICATED: _UNKNOWN_CALLER,
    grpc.StatusCode.PERMISSION_DENIED: _DENIED,
}
# gRPC maps most HTTP statuses to UNKNOWN; its text has the number.
_HTTP_STATUS = re.compile(r"\bstatus(?: code)?(?: received from server)?:? (\d{3})\b", re.I)
_BY_HTTP_STATUS = {
    401: _UNKNOWN_CALLER,
    403: _DENIED,
    404: _Meaning(UnsupportedError, "{target} is a web server or proxy that knows no such call"),
    407: _Meaning(UnauthenticatedError, "a proxy in front of {target} requires credentials"),
    408: _UNREACHABLE,
    413: _Meaning(TensorTooLargeError, "a message is too large for a proxy in front of {target}"),
    429: _LIMITED,
    431: _Meaning(
        TensorTooLargeError, "the metadata is too large for {target} or a proxy in front of it"
    ),
    **dict.fromkeys(
        (500, 502, 503, 504), _Meaning(UnavailableError, "a proxy failed for {target}")
    ),
}
_BY_TEXT = [
    (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        re.compile(r"larger than|too large|too big|exceeds|\d+ vs\.? \d+", re.I),
        _TOO_LARGE,
    ),
    (
        grpc.StatusCode.UNAVAILABLE,
        re.compile(r"errors resolving|address lookup failed|DNS resolution failed"),
        _Meaning(UnavailableError, "the name in {target} does not resolve", cause=UNRESOLVED),
    ),
    (
        grpc.StatusCode.UNAVAILABLE,
        re.compile(r"handshake failed|security handshaker|hostname verification|peer name", re.I),
        _Meaning(UnavailableError, "the TLS handshake with {target} failed", cause=HANDSHAKE),
    ),
    (
        grpc.StatusCode.UNAVAILABLE,
        re.compile(r"(backends failing|connect to all addresses).*Socket closed"),
        _Meaning(
            UnavailableError,
            "no server answers at {target}, which closes connections at once; "
            "it may require TLS, or a certificate of the client",
        ),
    ),
    (
        grpc.StatusCode.UNAVAILABLE,
        re.compile(r"too_many_pings"),
        _Meaning(UnavailableError, "{target} accepts fewer keepalive pings", cause=PINGS),
    ),
    (
        grpc.StatusCode.INTERNAL,
        re.compile(r"RST_STREAM|GOAWAY|stream terminated"),
        _Meaning(UnavailableError, "{target}, or a proxy in front of it, dropped the call"),
    ),
    (  # of a server without googleapis-common-protos, which sends no details
        grpc.StatusCode.INTERNAL,
        re.compile(r"^internal error [0-9a-f]{12};"),
        _Meaning(InternalError, "{target} failed"),
    ),
]


def foreign_error(code: grpc.StatusCode, text: str, target: str) -> PoolingError:
    """Return the error for a status that carries no details of ours.

    The fact ``retryable`` of an `UnavailableError` is "false" if the same call would fail again;
    the fact ``cause`` names a fault that retries alone do not remove.

    Args:
        code: status code.
        text: text of the status.
        target: address of the server, for the text.
    """
    meaning = _meaning(code, text)
    facts = {"cause": meaning.cause} if meaning.cause else {}
    if meaning.is_final:
        facts["retryable"] = "false"
    sentence = meaning.sentence.format(target=target)
    return meaning.error(f"{sentence} ({code.name}: {text})", facts=facts)


def _meaning(code: grpc.StatusCode, text: str) -> _Meaning:
    for sent, pattern, meaning in _BY_TEXT:
        if code is sent and pattern.search(text):
            return meaning
    http = _HTTP_STATUS.search(text)
    if http and int(http[1]) in _BY_HTTP_STATUS:
        return _BY_HTTP_STATUS[int(http[1])]
    return _BY_CODE.get(code, _FAILED)
