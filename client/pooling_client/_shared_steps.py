"""Steps of a call in shared memory: its requests name locations instead of tensors."""

from __future__ import annotations

from typing import Any

from pooling_client._calls.base import PreparedCall
from pooling_client._calls.shared import SharedCall
from pooling_client._steps import Progress, Result, Session, Share, Steps, left_s
from pooling_client._unary_steps import UNANSWERED, send
from pooling_engine import (
    DeadlineError,
    OverloadedError,
    PoolingError,
    UnavailableError,
    UnsupportedError,
)


def in_shared_memory(
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
            reply = yield from send(session, call.method.path, request, deadline, unanswered)
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
    except UNANSWERED as error:
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
