"""Decisions of a call, without I/O: the requests to send, and the next step after each reply.

`call_steps` is a generator. It yields steps; a driver performs each step over a transport and sends
the reply into the generator, or throws the `PoolingError` of the step. The generator returns the
result of the call. `PoolingClient` and `AsyncPoolingClient` differ only in their drivers and
transports.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pooling_wire
from pooling_client import _limits
from pooling_client._calls.base import PreparedCall, PreparedMessage
from pooling_client._calls.shared import SharedCall, share
from pooling_client._limits import UNKNOWN, RequestLimits, request_limits
from pooling_client._shared_memory import SHARED_BYTES
from pooling_client._shared_steps import in_shared_memory
from pooling_client._steps import Progress, Result, Run, Session, Steps, Stream, left_s
from pooling_client._streams.backlog import Reply
from pooling_client._unary_steps import send
from pooling_engine import OverloadedError, PoolingError, TensorTooLargeError, UnavailableError

GET_SERVER_INFO_PATH = pooling_wire.path_of(pooling_wire.GET_SERVER_INFO)


def may_share(call: PreparedMessage[Any, Any], session: Session) -> bool:
    """Return whether a call may be sent as an item of a shared stream, before its steps.

    This is not a step, because a generator for each small call would take longer than encoding it.
    """
    is_possible = session.shares_streams and call.is_small
    return is_possible and not session.limits.needs_chunks(call.total_bytes)


def shared_result(
    call: PreparedMessage[Any, Result], session: Session, id_: int, reply: bytes | None
) -> Result | None:
    """Return the result of a call that was sent over a shared stream.

    Args:
        call: the call.
        session: state of the client.
        id_: number of the item.
        reply: the reply; None if there is none.

    Returns:
        The result; None if the steps of the call are to be performed.

    Raises:
        PoolingError: the call failed for good.
    """
    if reply is None:
        return None
    try:
        result = call.shared_result(reply, id_)
    except (UnavailableError, OverloadedError, TensorTooLargeError):  # the steps handle these
        return None
    session.throttle.succeed()
    return result


def call_steps(
    call: PreparedCall[Any, Result],
    session: Session,
    progress: Progress | None,
    deadline: float,
) -> Steps[Result]:
    """Yield the steps of a call and return its result.

    The transports, in order of preference: shared memory, one message, chunks over a stream. A call
    that does not fit one of them continues with the next. Small calls over a shared stream come
    before the steps.

    Args:
        call: the call.
        session: state of the client.
        progress: called with the bytes done and the total.
        deadline: time of `time.monotonic` at which the call fails.
    """
    total = call.total_bytes
    report = progress or _report_nothing
    if session.limits is UNKNOWN and total > _limits.STREAM_BYTES:  # not for small calls
        yield from fetch_limits(session, deadline)
    if total >= SHARED_BYTES and session.shared_memory.is_possible:
        shared: SharedCall[Any, Result] | None = yield Run(partial(_shared, call, session))
        if shared is not None:
            try:
                result = yield from in_shared_memory(call, session, shared, report, deadline)
            except PoolingError as error:
                if not isinstance(error, TensorTooLargeError) and shared.arrays.is_alive():
                    raise
            else:
                if result is not None:
                    return result
        del shared
    if not session.limits.needs_chunks(total):
        try:
            result = yield from in_one_message(call, session, deadline)
        except TensorTooLargeError:  # at least as one message
            yield from fetch_limits(session, deadline)
            if not session.limits.needs_chunks(total):
                raise
        else:
            report(total, total)
            return result
    limits = session.limits
    try:
        return (yield from _in_chunks(call, limits, report, deadline))
    except TensorTooLargeError:
        yield from fetch_limits(session, deadline)
        if session.limits == limits:
            raise
    # A restarted server has lower limits.
    return (yield from _in_chunks(call, session.limits, report, deadline))


def _shared(call: PreparedCall[Any, Result], session: Session) -> SharedCall[Any, Result] | None:
    """Return the call in shared memory; None if there is none for it."""
    arrays = session.shared_memory.arrays()
    return None if arrays is None else share(call, arrays, session.limits)


def in_one_message(
    call: PreparedMessage[Any, Result], session: Session, deadline: float
) -> Steps[Result]:
    """Send the call as a unary call."""
    reply = yield from send(session, call.method.path, call.request(), deadline)
    return call.result(reply)


def info_steps(session: Session, deadline: float) -> Steps[pooling_wire.ServerInfo]:
    """Yield the steps of GetServerInfo and return its result."""
    reply = yield from send(session, GET_SERVER_INFO_PATH, b"", deadline)
    return pooling_wire.decode_server_info(reply)


def fetch_limits(session: Session, deadline: float) -> Steps[None]:
    """Fetch the limits of the server. An early failure is ignored; the next request reports it."""
    try:
        info = yield from info_steps(session, deadline)
        session.limits = request_limits(info.limits)
    except PoolingError as error:
        if not left_s(deadline) or error.facts.get("retryable") == "false":
            raise


def _in_chunks(
    call: PreparedCall[Any, Result], limits: RequestLimits, report: Progress, deadline: float
) -> Steps[Result]:
    """Send the chunks of the call over a stream."""
    chunked = call.chunked(limits)
    done, total = 0, call.total_bytes

    def receive(chunk: Any, reply: Reply) -> None:
        nonlocal done
        done += chunked.receive(chunk, reply)
        report(done, total)

    method, window = call.method.stream_path, _limits.CHUNK_WINDOW
    yield Stream(method, chunked.requests(), receive, window, left_s(deadline))
    report(total, total)  # the bytes of each chunk are rounded down
    return chunked.result()


def _report_nothing(done: int, total: int) -> None:
    """Report no progress."""
