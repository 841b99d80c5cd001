"""Connect and gRPC-Web: the unary methods of `pooling.v1`, with the library connectrpc.

The library reads and writes the protocols. Its codecs pass bytes through, so the decoders of gRPC
decode the messages here too, in the thread that computes the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

from connectrpc.code import Code
from connectrpc.errors import ConnectError, ErrorDetail
from connectrpc.interceptor import MetadataInterceptor
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.request import RequestContext
from connectrpc.server import ConnectASGIApplication, Endpoint
from protobuf import wkt
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Message, Receive, Scope, Send

import pooling_wire
from pooling_engine import InvalidTensorError, PoolingError, UnsupportedError
from pooling_server.http.calls import HttpCall, HttpServices, Served
from pooling_server.http.json_messages import with_json
from pooling_wire import SERVICE_NAME

_call: ContextVar[HttpCall] = ContextVar("call")
_body: ContextVar[bytes] = ContextVar("body")
# Errors of the library, about frames and compression.
_UNREADABLE = {Code.INVALID_ARGUMENT: InvalidTensorError, Code.UNIMPLEMENTED: UnsupportedError}
_GRPC = b"application/grpc"


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose message is not decoded yet.

    Attributes:
        data: bytes of the message.
        is_json: true for the JSON form, which the reply then has too.
    """

    data: bytes
    is_json: bool


class _PassingCodec:
    """Codec that passes the bytes of messages through."""

    def __init__(self, name: str) -> None:
        self._name = name

    def name(self) -> str:
        return self._name

    def encode(self, message: bytes) -> bytes:
        return message

    def decode(self, data: bytes | bytearray, message_class: type[Request]) -> Request:
        return message_class(bytes(data), self._name == "json")


class _Admission(MetadataInterceptor[None]):
    """Admits calls and receives their bodies, before the library parses them."""

    async def on_start(self, ctx: RequestContext[Any, Any]) -> None:
        call = _call.get()
        try:
            _body.set(await call.message())
        except ClientDisconnect:
            raise ConnectError(Code.CANCELED, "the client has disconnected") from None
        except Exception as error:
            raise _failed(call, error, ctx) from None

    async def on_end(
        self, token: None, ctx: RequestContext[Any, Any], error: Exception | None, /
    ) -> None:
        call = _call.get()
        if not call.trailers and isinstance(error, ConnectError) and error.code in _UNREADABLE:
            raise _failed(call, _UNREADABLE[error.code](error.message), ctx)
        _add_trailers(call, ctx)


class _Application(ConnectASGIApplication[None]):
    """The service as an ASGI application."""

    @property
    def path(self) -> str:
        return f"/{SERVICE_NAME}"


def routes(services: HttpServices) -> list[BaseRoute]:
    """Return the routes of the unary methods."""
    endpoints = {
        pooling_wire.path_of(name): Endpoint.unary(_method(name), partial(_answer, services, name))
        for name in services.prepares
    }

    def resolve(_: None) -> Mapping[str, Any]:
        return endpoints

    application = _Application(
        service=None,
        endpoints=resolve,
        interceptors=[_Admission()],
        read_max_bytes=None,  # `HttpCall.message` limits the body, and names the option
        compressions=[],
        codecs=[_PassingCodec("proto"), _PassingCodec("json")],
    )

    async def serve(call: HttpCall, scope: Scope, receive: Receive, send: Send) -> None:
        if _is_native(scope):
            await _NO_GRPC(scope, receive, send)
            return
        _call.set(call)
        await application(_decodable(scope), _Replay(call), send)

    return [
        Route(pooling_wire.path_of(name), Served(services, name, serve))
        for name in services.prepares
    ]


class _Replay:
    """Receives the body that has arrived already, then waits for the end of the connection."""

    def __init__(self, call: HttpCall) -> None:
        self._call, self._is_read = call, False

    async def __call__(self) -> Message:
        if not self._is_read:
            self._is_read = True
            return {"type": "http.request", "body": _body.get(), "more_body": False}
        await self._call.gone()
        return {"type": "http.disconnect"}


async def _answer(
    services: HttpServices, name: str, request: Request, ctx: RequestContext[Any, Any]
) -> bytes:
    call = _call.get()
    prepare = services.prepares[name]
    if request.is_json:
        prepare = with_json(name, prepare)
    deadline_s = None if ctx.timeout_ms is None else max(0.0, ctx.timeout_ms / 1000)
    try:
        return await call.answer(prepare, request.data, deadline_s)
    except Exception as error:
        raise _failed(call, error, ctx) from None


def _failed(call: HttpCall, exception: Exception, ctx: RequestContext[Any, Any]) -> ConnectError:
    """End a call with an error; return the error in the form of the library."""
    error = call.fail(exception)
    _add_trailers(call, ctx)
    return connect_error(error)


def connect_error(error: PoolingError) -> ConnectError:
    """Return an error with the code, the text and the details that gRPC sends."""
    code = Code(pooling_wire.encode_error(error).code.name.lower())
    details = [
        ErrorDetail(wkt.Any(type_url=detail.type_url, value=detail.value))
        for detail in pooling_wire.error_details(error)
    ]
    return ConnectError(code, str(error), details)


def _add_trailers(call: HttpCall, ctx: RequestContext[Any, Any]) -> None:
    for key, value in call.trailers:
        ctx.response_trailers[key] = str(value)


def _method(name: str) -> MethodInfo[Request, bytes]:
    return MethodInfo(
        name=name,
        service_name=SERVICE_NAME,
        input=Request,
        output=bytes,
        idempotency_level=IdempotencyLevel.UNKNOWN,
        stream_type=StreamType.UNARY,
    )


def _is_native(scope: Scope) -> bool:
    """Return True for a request of gRPC, which needs HTTP/2."""
    types = [value for name, value in scope["headers"] if name == b"content-type"]
    return any(each == _GRPC or each.startswith(_GRPC + b"+") for each in types)


_NO_GRPC = PlainTextResponse(
    "gRPC needs HTTP/2; use the addresses of --listen, or gRPC-Web or Connect here\n", 415
)


def _decodable(scope: Scope) -> Scope:
    """Leave out headers that the library cannot decode."""
    return {**scope, "headers": [pair for pair in scope["headers"] if _is_utf8(pair[1])]}


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
