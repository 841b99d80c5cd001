"""Decisions of a call, without I/O: which requests to send, and how to go on after each reply.

`call_steps` is a generator. It yields steps; a driver performs each step over a transport and sends
the reply into the generator, or throws the `PoolingError` of the step. The generator returns the
result of the call. `PoolingClient` and `AsyncPoolingClient` differ in their drivers and transports
alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Generator, Iterator
from functools import partial
from time import monotonic
from typing import Any, NamedTuple, TypeVar

import pooling_wire
from pooling_client import _limits
from pooling_client._calls.base import PreparedCall, PreparedMessage
from pooling_client._calls.shared import SharedCall, share
from pooling_client._limits import UNKNOWN, RequestLimits, request_limits
from pooling_client._retries import Retries, Throttle
from pooling_client._shared_memory import SHARED_BYTES, SharedMemory
from pooling_client._streams.backlog import Reply, Request
from pooling_engine import (
    DeadlineError,
    OverloadedError,
    PoolingError,
    TensorTooLargeError,
    UnavailableError,
    UnsupportedError,
)

Result = TypeVar("Result")
Progress = Callable[[int, int], object]


class Send(NamedTuple):
    """Step: send one request; the reply to the step is the reply of the server.

    Attributes:
        method: path of a unary method.
        request: bytes of the message.
        timeout_s: seconds for the reply.
    """

    method: str
    request: bytes
    timeout_s: float


class Share(NamedTuple):
    """Step: send an item over a shared stream that carries one such item at a time.

    The reply to the step is the reply of the server, or None if the item was not sent.

    Attributes:
        method: path of a streaming method.
        item: bytes of the item.
        deadline: time of `time.monotonic`.
    """

    method: str
    item: bytes
    deadline: float


class Stream(NamedTuple):
    """Step: send requests over one stream; the reply to the step is None, after the last reply.

    Attributes:
        method: path of a streaming method.
        requests: pairs of a token and a request.
        receive: takes the token and the reply of each request, in order.
        window: maximum number of requests without a reply.
        timeout_s: seconds for the whole stream.
    """

    method: str
    requests: Iterator[tuple[Any, Request]]
    receive: Callable[[Any, Reply], None]
    window: int
    timeout_s: float


class Wait(NamedTuple):
    """Step: wait before the next attempt.

    Attributes:
        seconds: seconds to wait.
        connects: True if there was no connection.
    """

    seconds: float
    connects: bool


class Run(NamedTuple):
    """Step: call a function that may take long; the reply to the step is its result.

    Attributes:
        work: leases memory from the server and copies tensors.
    """

    work: Callable[[], Any]


_UNANSWERED = (UnavailableError, DeadlineError)  # the server may still compute the call
GET_SERVER_INFO_PATH = pooling_wire.path_of(pooling_wire.GET_SERVER_INFO)
Step = Send | Share | Stream | Wait | Run
Steps = Generator[Step, Any, Result]


class Session:
    """State that the calls of one client share.

    Args:
        shared_memory: arrays that the client shares with the server.
        patience_s: seconds of attempts after which an unavailable server fails a call.
        shares_streams: send small calls, and calls in shared memory, over shared streams.

    Attributes:
        limits: limits of the server, as far as they are known.
        places_items: False once the server has rejected locations in shared memory on a stream.
        knows_layers: False once the server has ignored further layers of a request.
        throttle: budget of retries.
        ids: numbers of the items on shared streams.
    """

    def __init__(
        self,
        shared_memory: SharedMemory,
        patience_s: float = math.inf,
        *,
        shares_streams: bool = False,
    ) -> None:
        self.shared_memory = shared_memory
        self.patience_s = patience_s
        self.shares_streams = shares_streams
        self.ids = itertools.count(1)
        self.throttle = Throttle()
        self.limits: RequestLimits = UNKNOWN
        self.knows_layers = True
        self.places_items = True


def may_share(call: PreparedMessage[Any, Any], session: Session) -> bool:
    """Return whether a call may be sent as an item of a shared stream, before its steps.

    This is no step, because a generator for each small call would take longer than encoding it.
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
                result = yield from _in_shared_memory(call, session, shared, report, deadline)
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
    reply = yield from _send(session, call.method.path, call.request(), deadline)
    return call.result(reply)


def info_steps(session: Session, deadline: float) -> Steps[pooling_wire.ServerInfo]:
    """Yield the steps of GetServerInfo and return its result."""
    reply = yield from _send(session, GET_SERVER_INFO_PATH, b"", deadline)
    return pooling_wire.decode_server_info(reply)


def _send(
    session: Session,
    method: str,
    request: bytes,
    deadline: float,
    unanswered: list[PoolingError] | None = None,
) -> Steps[bytes]:
    """Send a request until it has its reply, the deadline is near or the error is permanent.

    Args:
        session: state of the client.
        method: path of a unary method.
        request: bytes of the message.
        deadline: time of `time.monotonic` at which the call fails.
        unanswered: receives the errors after which the server may still compute the request.
    """
    retries: Retries | None = None
    while True:
        try:
            reply: bytes = yield Send(method, request, left_s(deadline))
        except PoolingError as error:
            if unanswered is not None and isinstance(error, _UNANSWERED):
                unanswered.append(error)
            retries = retries or Retries(deadline, session.throttle, session.patience_s)
            wait = Wait(retries.wait_s(error), isinstance(error, UnavailableError))
        else:
            session.throttle.succeed()
            return reply
        yield wait


def fetch_limits(session: Session, deadline: float) -> Steps[None]:
    """Fetch the limits of the server. If that fails early, the next request shows the problem."""
    try:
        info = yield from info_steps(session, deadline)
        session.limits = request_limits(info.limits)
    except PoolingError as error:
        if not left_s(deadline) or error.facts.get("retryable") == "false":
            raise


def _in_shared_memory(
    call: PreparedCall[Any, Result],
    session: Session,
    shared: SharedCall[Any, Result],
    report: Progress,
    deadline: float,
) -> Steps[Result | None]:
    """Send requests that name locations in shared memory instead of tensors.

    After an attempt without an answer, the server may still compute, and write the results at any
    time. They are then detached from it.

    Returns:
        The result; None if another call has detached its memory meanwhile.
    """
    requests, total = shared.requests(), call.total_bytes
    unanswered: list[PoolingError] = []
    result: Result | None = None
    is_answered = False
    try:
        if len(requests) == 1 and session.shares_streams and session.places_items:
            is_answered, result = yield from _as_item(
                call, session, shared, requests[0], deadline, unanswered
            )
            if is_answered:
                report(total, total)
                return result
        for number, request in enumerate(requests, start=1):
            reply = yield from _send(session, call.method.path, request, deadline, unanswered)
            report(number * total // len(requests), total)
        is_answered = True
        result = shared.result(reply)
        return result
    except PoolingError:
        is_answered = not unanswered
        raise
    finally:
        if unanswered or not is_answered:
            shared.detach(copies=result is not None)


def _as_item(
    call: PreparedCall[Any, Result],
    session: Session,
    shared: SharedCall[Any, Result],
    request: bytes,
    deadline: float,
    unanswered: list[PoolingError],
) -> Steps[tuple[bool, Result | None]]:
    """Send a call in shared memory over a stream without other calls.

    Args:
        call: the call.
        session: state of the client.
        shared: the call in shared memory.
        request: bytes of its request.
        deadline: time of `time.monotonic` at which the call fails.
        unanswered: receives the errors after which the server may still compute the request.

    Returns:
        False and None if the call is to be sent as a unary call; otherwise True and the result, as
        `SharedCall.result` returns it.
    """
    id_, timeout_us = next(session.ids), round(left_s(deadline) * 1e6)
    item = call.method.item_of(id_, request, timeout_us)
    try:
        reply: bytes | None = yield Share(call.method.stream_path, item, deadline)
    except _UNANSWERED as error:
        unanswered.append(error)
        if isinstance(error, DeadlineError):
            raise
        return False, None
    if reply is None:
        return False, None
    try:
        result = shared.result(reply, id_)
    except UnsupportedError:  # of a server that accepts locations in unary calls alone
        session.places_items = False
        return False, None
    except (UnavailableError, OverloadedError):  # the unary call retries these
        return False, None
    session.throttle.succeed()
    return True, result


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


def left_s(deadline: float) -> float:
    """Return the seconds until a time of `time.monotonic`, at least 0."""
    return max(0.0, deadline - monotonic())


def _report_nothing(done: int, total: int) -> None:
    """Report no progress."""
