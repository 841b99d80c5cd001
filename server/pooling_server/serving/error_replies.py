"""Conversion of exceptions into the errors that clients receive."""

from __future__ import annotations

import logging
import uuid
from typing import NoReturn

import grpc

import pooling_wire
from pooling_engine import (
    DeviceMemoryError,
    InternalError,
    OverloadedError,
    PoolingError,
    TensorTooLargeError,
)
from pooling_server.serving.rpcs import Trailers

PUSHBACK = "grpc-retry-pushback-ms"
_MOST_BYTES = 1000  # of a text: trailers repeat it, and gRPC rejects trailers of 8 KiB
_MOST_FIELD_BYTES = 200
_NEVER_RETRIED = (TensorTooLargeError, DeviceMemoryError)  # they share a status with overload
_log = logging.getLogger("pooling_server")


def error_reply(error: Exception, request_id: str) -> PoolingError:
    """Return the error to send to the client.

    A bug is reported only by an id; the exception is logged under the same id.

    Args:
        error: what a handler raised.
        request_id: id of the RPC, for the log.
    """
    extra = {"request_id": request_id}
    if isinstance(error, PoolingError):
        error = _sendable(error)
        _log.info("rejected: %s: %s", error.reason, error, extra=extra)
        return error
    if isinstance(error, MemoryError):
        _log.error("out of memory: %s", error, extra=extra)
        return DeviceMemoryError("the server ran out of host memory")
    bug = uuid.uuid4().hex[:12]
    _log.error("bug %s", bug, exc_info=error, extra=extra)
    return InternalError(f"internal error {bug}; details are in the server's log")


def _sendable(error: PoolingError) -> PoolingError:
    """Return an error with texts that fit into trailers; they may repeat what the client sent."""
    text, field = _shortened(str(error), _MOST_BYTES), _shortened(error.field, _MOST_FIELD_BYTES)
    if (text, field) == (str(error), error.field):
        return error
    return type(error)(text, field=type(error.field)(field), facts=error.facts)


def _shortened(text: str, most_bytes: int) -> str:
    """Return a text on one line, without its middle if it is too long; odd characters escaped."""
    if not text.isprintable():  # a name that the client sent may break the line, also in the log
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    data = text.encode("utf-8", "backslashreplace")
    if len(data) > most_bytes:
        half = most_bytes // 2 - 2
        data = data[:half] + b"..." + data[-half:]
    return data.decode("utf-8", "ignore")


def set_status(
    context: grpc.ServicerContext, error: PoolingError, trailers: Trailers
) -> pooling_wire.Status:
    """Give a call the status and the details of an error; return the status.

    Args:
        context: context of the call.
        error: the error.
        trailers: further trailing metadata.
    """
    status = pooling_wire.encode_error(error)
    details = ((pooling_wire.DETAILS_KEY, status.details),) if status.details else ()
    context.set_trailing_metadata((*details, *_pushback(error), *trailers))
    context.set_code(status.code)
    context.set_details(status.message)
    return status


def abort(context: grpc.ServicerContext, error: PoolingError, trailers: Trailers) -> NoReturn:
    """End a call with the status and the details of the error."""
    status = set_status(context, error, trailers)
    context.abort(status.code, status.message)


def _pushback(error: PoolingError) -> Trailers:
    """Return the trailer that tells gRPC's own retries when to retry: -1 for never."""
    if isinstance(error, OverloadedError):
        return ((PUSHBACK, str(round(1000 * float(error.facts["retry_after_s"])))),)
    return ((PUSHBACK, "-1"),) if isinstance(error, _NEVER_RETRIED) else ()
