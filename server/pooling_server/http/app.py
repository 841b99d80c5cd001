"""ASGI application of the HTTP endpoint: its routes, health, and origins of web pages."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from pooling_server.config_checks import split_origins
from pooling_server.http import connect, oip_routes
from pooling_server.http.calls import HttpServices

_EXPOSED = (
    "Grpc-Message",
    "Grpc-Status",
    "Grpc-Status-Details-Bin",
    "Inference-Header-Content-Length",
    "Server-Timing",
    "X-Request-Id",
)
_MAX_AGE_S = 7200  # the longest that Chromium keeps the answer to a preflight request


def make_app(services: HttpServices) -> Starlette:
    """Return the application. Each protocol is a list of routes."""
    routes = [*_health(services), *connect.routes(services), *oip_routes.routes(services)]
    origins = split_origins(services.config.http_cors_origin)
    cors = Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=("*",),
        expose_headers=_EXPOSED,
        max_age=_MAX_AGE_S,
    )
    return Starlette(
        routes=routes,
        middleware=[cors] if origins else [],
        exception_handlers={HTTPException: oip_routes.http_error},
    )


def _health(services: HttpServices) -> list[BaseRoute]:
    """Return the routes of liveness and readiness, which need no token."""

    async def live(request: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def ready(request: Request) -> Response:
        if services.is_ready():
            return PlainTextResponse("ready\n")
        return PlainTextResponse("not ready\n", 503)

    return [Route("/livez", live), Route("/readyz", ready)]
