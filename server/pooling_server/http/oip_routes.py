"""Routes of the Open Inference Protocol over REST."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from google.protobuf import json_format
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

import pooling_wire
from pooling_engine import InvalidSpecError, OverloadedError, UnsupportedError
from pooling_server.http.calls import HttpCall, HttpServices, Served
from pooling_server.oip import information
from pooling_server.oip.inference import NO_SHARED_MEMORY
from pooling_server.oip.json_messages import RestExchange
from pooling_server.oip.models import find_model
from pooling_server.oip.service import INFER, InferenceService
from pooling_server.serving.call_processor import PreparedCall
from pooling_server.serving.unary_calls import Prepare

JSON_SIZE = "inference-header-content-length"
_STATUSES = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "UNIMPLEMENTED": 501,
    "RESOURCE_EXHAUSTED": 413,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_SHARED_MEMORY = ("/v2/systemsharedmemory/", "/v2/cudasharedmemory/")
_MOST_CHARACTERS = 200  # of what an error repeats
_MODELS = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")

Answer = Callable[[Scope], Any]


def routes(services: HttpServices) -> list[BaseRoute]:
    """Return the routes."""
    inference = services.inference
    found: list[BaseRoute] = [
        Route("/v2/health/live", partial(_health, lambda: True)),
        Route("/v2/health/ready", partial(_health, inference.is_ready)),
    ]

    def add(path: str, name: str, answer: Answer, methods: tuple[str, ...] = ("GET",)) -> None:
        endpoint = partial(_about, answer)
        found.append(Route(path, Served(services, name, endpoint), methods=methods))

    add("/v2", "ServerMetadata", lambda _: information.server_metadata(inference.version))
    index = partial(_index, inference)
    add("/v2/repository/index", "RepositoryIndex", index, ("POST",))
    add("/v2/models/stats", "ModelStatistics", partial(_statistics, inference))
    for path in _MODELS:
        add(path, "ModelMetadata", lambda scope: information.model_metadata(_model(scope)))
        add(f"{path}/config", "ModelConfig", lambda scope: information.model_config(_model(scope)))
        add(f"{path}/stats", "ModelStatistics", partial(_statistics, inference))
        found.append(Route(f"{path}/ready", partial(_model_ready, inference)))
        infer = Served(services, INFER, partial(_infer, inference))
        found.append(Route(f"{path}/infer", infer, methods=("POST",)))
    return found


async def http_error(request: Request, error: Exception) -> Response:
    """Return the reply to an unknown route, or to a method that a route does not have."""
    assert isinstance(error, HTTPException)
    if not request.url.path.startswith("/v2"):
        return PlainTextResponse(error.detail, error.status_code, error.headers)
    path = request.url.path[:_MOST_CHARACTERS]
    text = f"there is no route {path}"
    if error.status_code == 405:
        methods = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
        text = f"{path} has no {request.method[:_MOST_CHARACTERS]}; it has {methods}"
    elif path.startswith(_SHARED_MEMORY):
        return JSONResponse({"error": NO_SHARED_MEMORY}, 501)
    return JSONResponse({"error": text}, error.status_code, error.headers)


async def _health(is_good: Callable[[], bool], request: Request) -> Response:
    return Response(status_code=200 if is_good() else 503)


async def _model_ready(inference: InferenceService, request: Request) -> Response:
    name, version = _named(request.scope)
    reply = information.model_ready(name, version, is_ready=inference.is_ready())
    return Response(status_code=200 if reply.ready else 404)


def _named(scope: Scope) -> tuple[str, str]:
    parameters = scope["path_params"]
    return parameters.get("name", ""), parameters.get("version", "")


def _model(scope: Scope) -> Any:
    return find_model(*_named(scope))


def _statistics(inference: InferenceService, scope: Scope) -> Any:
    return information.model_statistics(inference.statistics, *_named(scope))


def _index(inference: InferenceService, scope: Scope) -> Any:
    return information.repository_index(is_ready=inference.is_ready())


async def _about(
    answer: Answer, call: HttpCall, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer a request about the server or its models."""

    def encode() -> bytes:
        message = answer(scope)
        record = json_format.MessageToDict(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        content = record.get("models", record)  # the index is a list
        return json.dumps(_plain(content)).encode()

    prepare = partial(_prepared, encode)
    try:
        body = await call.answer(prepare, await call.message())
    except ClientDisconnect:
        raise
    except Exception as error:
        await _failed(call, error)(scope, receive, send)
        return
    await Response(body, media_type="application/json")(scope, receive, send)


def _prepared(encode: Callable[[], bytes], *_: Any) -> PreparedCall:
    return PreparedCall(0, lambda _: encode())


async def _infer(
    inference: InferenceService, call: HttpCall, scope: Scope, receive: Receive, send: Send
) -> None:
    """Compute the call in a request, in a thread of the worker."""
    try:
        _check_encoding(scope)
        exchange = RestExchange(*_named(scope), _json_size(scope), inference.statistics)
        prepare: Prepare = partial(inference.prepare_rest, exchange)
        body = await call.answer(prepare, await call.message())
    except ClientDisconnect:
        raise
    except Exception as error:
        await _failed(call, error)(scope, receive, send)
        return
    reply = Response(body, media_type="application/json")
    if exchange.reply_json_size is not None:
        reply.headers["Content-Type"] = "application/octet-stream"
        reply.headers["Inference-Header-Content-Length"] = str(exchange.reply_json_size)
    await reply(scope, receive, send)


def _check_encoding(scope: Scope) -> None:
    encoding = Headers(scope=scope).get("content-encoding", "identity")
    if encoding != "identity":
        raise UnsupportedError(
            f"Content-Encoding is {encoding!r}; this server reads bodies without compression only",
            field="Content-Encoding",
        )


def _json_size(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name.decode("latin-1") == JSON_SIZE:
            if not re.fullmatch(rb"\d{1,12}", value):
                raise InvalidSpecError(
                    f"Inference-Header-Content-Length is {value.decode('latin-1')!r}; it must be "
                    "a number of bytes",
                    field="Inference-Header-Content-Length",
                )
            return int(value)
    return None


def _failed(call: HttpCall, exception: Exception) -> Response:
    """End a call with an error, in the form of the protocol."""
    error = call.fail(exception)
    code = pooling_wire.encode_error(error).code.name
    status = _STATUSES.get(code, 500)
    if error.field in ("model_name", "model_version"):
        status = 404
    headers = {}
    if isinstance(error, OverloadedError):
        status = 429
        headers["Retry-After"] = "1"
    return JSONResponse({"error": str(error)}, status, headers)


def _plain(value: Any) -> Any:
    """Return a record whose 64-bit integers, which protobuf writes as text, are numbers."""
    if isinstance(value, dict):
        return {key: item if key in _TEXTS else _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, str) and re.fullmatch(r"-?\d+", value) else value


_TEXTS = ("name", "version", "versions", "datatype")
