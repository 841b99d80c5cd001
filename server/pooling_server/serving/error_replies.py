"""Conversion of exceptions into the errors that clients receive."""

from __future__ import annotations

import logging
import uuid
from typing import NoReturn

import grpc

import pooling_wire
from pooling_engine import DeviceMemoryError, InternalError, PoolingError

_log = logging.getLogger("pooling_server")


def error_reply(error: Exception) -> PoolingError:
    """Return the error to send to the client.

    A bug is reported only by an id; the exception is logged under the same id.
    """
    if isinstance(error, PoolingError):
        _log.info("rejected: %s: %s", error.reason, error)
        return error
    if isinstance(error, MemoryError):
        _log.error("out of memory: %s", error)
        return DeviceMemoryError("the server ran out of host memory")
    bug = uuid.uuid4().hex[:12]
    _log.exception("bug %s", bug)
    return InternalError(f"internal error {bug}; details are in the server's log")


def set_status(context: grpc.ServicerContext, error: PoolingError) -> pooling_wire.Status:
    """Give a call the status and the details of an error; return the status."""
    status = pooling_wire.encode_error(error)
    if status.details:
        context.set_trailing_metadata(((pooling_wire.DETAILS_KEY, status.details),))
    context.set_code(status.code)
    context.set_details(status.message)
    return status


def abort(context: grpc.ServicerContext, error: PoolingError) -> NoReturn:
    """End a call with the status and the details of the error."""
    status = set_status(context, error)
    context.abort(status.code, status.message)
