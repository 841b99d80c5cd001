"""Spans of RPCs, if the API of OpenTelemetry is installed; the user configures the exporter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

try:
    from opentelemetry import propagate, trace
except ImportError:
    trace = None  # type: ignore[assignment]

_KEYS = ("traceparent", "tracestate", "baggage")


def is_tracing() -> bool:
    """Return True if this process has a tracer provider, which records spans."""
    if trace is None:
        return False
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def start_span(service: str, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> Any:
    """Return a span for an RPC, in the trace of its client."""
    carrier = {key: value for key, value in metadata if key in _KEYS and isinstance(value, str)}
    return trace.get_tracer("pooling_server").start_span(
        f"{service}/{method}",
        context=propagate.extract(carrier),
        kind=trace.SpanKind.SERVER,
        attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": method},
    )


def end_span(span: Any, code: str, attributes: dict[str, Any]) -> None:
    """End a span.

    Args:
        span: result of `start_span`.
        code: name of the status code.
        attributes: further attributes.
    """
    span.set_attributes({"rpc.grpc.status_code": code, **attributes})
    if code != "OK":
        span.set_status(trace.StatusCode.ERROR, code)
    span.end()
