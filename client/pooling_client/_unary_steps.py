"""Steps of one request: attempts until its reply, its deadline or a permanent error."""

from __future__ import annotations

from pooling_client._retries import Retries
from pooling_client._steps import Send, Session, Steps, Wait, left_s
from pooling_engine import DeadlineError, PoolingError, UnavailableError

UNANSWERED = (UnavailableError, DeadlineError)  # the server may still compute the call


def send(
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
            if unanswered is not None and isinstance(error, UNANSWERED):
                unanswered.append(error)
            retries = retries or Retries(deadline, session.throttle, session.patience_s)
            wait = Wait(retries.wait_s(error), isinstance(error, UnavailableError))
        else:
            session.throttle.succeed()
            return reply
        yield wait
