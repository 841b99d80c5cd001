"""Waits between the attempts of a call, without I/O: errors to retry, delays, and their end.

Every call is safe to repeat, because the service is stateless. Unary calls and streams use this
module.
"""

from __future__ import annotations

import math
import random
from time import monotonic

from pooling_client._channel import NOT_CONNECTED
from pooling_engine import OverloadedError, PoolingError, UnavailableError
from pooling_wire import HANDSHAKE, UNRESOLVED

FIRST_WAIT_S, MAX_WAIT_S = 0.1, 1.0  # of exponential back-off, before jitter
NO_PATIENCE_S = 1.0  # without wait_for_ready: for a lost connection
# The name may be registered, or the certificate replaced, within seconds; else a retry is in vain.
CONFIGURATION_PATIENCE_S = 5.0
_CONFIGURATION_CAUSES = (UNRESOLVED, HANDSHAKE)

MAX_TOKENS = 20.0
TOKENS_PER_SUCCESS = 0.5
SLOWDOWN = 4.0  # of waits for a busy server without tokens


class Throttle:
    """Budget of the retries of all calls of one client, so that they do not increase an overload.

    A retry takes one token, a success returns half a token. Without tokens, waits for a busy server
    are longer. Attempts without a connection reach no server, and need no token. No call fails
    because of the budget.
    """

    def __init__(self) -> None:
        self._tokens = MAX_TOKENS

    def succeed(self) -> None:
        """Return part of a token after a successful call."""
        if self._tokens < MAX_TOKENS:
            self._tokens = min(MAX_TOKENS, self._tokens + TOKENS_PER_SUCCESS)

    def slowdown(self) -> float:
        """Take a token for a retry and return the factor of its wait."""
        if self._tokens < 1:
            return SLOWDOWN
        self._tokens -= 1
        return 1.0


class Retries:
    """Attempts of one call or stream.

    Args:
        deadline: time of `time.monotonic` at which the call fails; None for no deadline.
        throttle: budget of the client.
        patience_s: seconds of attempts without progress after which an unavailable server fails
            the call; for a call without a deadline, any error does.
    """

    def __init__(
        self, deadline: float | None, throttle: Throttle, patience_s: float = math.inf
    ) -> None:
        self._deadline = deadline
        self._throttle = throttle
        self._patience_s = patience_s
        self._answered = 0
        self._unavailable: PoolingError | None  # the last such error, without its traceback
        self._restart()

    def _restart(self) -> None:
        self._attempts = 0
        self._unavailable = None
        self._wait_s = FIRST_WAIT_S
        self._begin = monotonic()

    def left_s(self) -> float | None:
        """Return the seconds until the deadline, at least 0; None without a deadline."""
        return None if self._deadline is None else max(0.0, self._deadline - monotonic())

    def wait_s(self, failure: PoolingError, answered: int = 0) -> float:
        """Return the seconds to wait after a failed attempt, before the next one.

        Args:
            failure: the error of the attempt.
            answered: number of requests that have their reply. Progress restarts the back-off.

        Raises:
            PoolingError: `failure`, if it is permanent or no attempt fits before the deadline. The
                text states the attempts if there were several. If the deadline has passed while the
                last attempt was connecting, the error of an earlier attempt says more, and is
                raised instead.
        """
        if answered > self._answered:
            self._answered = answered
            self._restart()
        self._attempts += 1
        if self._attempts == 1:
            self._begin = monotonic()
        if isinstance(failure, UnavailableError):
            self._unavailable = type(failure)(
                str(failure), field=failure.field, facts=failure.facts
            )
        is_answered = not isinstance(failure, UnavailableError) or "retry_after_s" in failure.facts
        try:
            least_s, left_s = _least_wait_s(failure), self._left_s(failure)
            if left_s <= least_s:
                raise self._described(failure)
        finally:
            del failure  # an error and its traceback would keep each other alive
        wait_s = max(least_s, self._wait_s) * random.uniform(1.0, 1.5)
        if is_answered:
            wait_s *= self._throttle.slowdown()
        self._wait_s = min(2 * self._wait_s, MAX_WAIT_S)
        return min(wait_s, max(least_s, left_s / 2))

    def _left_s(self, failure: PoolingError) -> float:
        """Return the seconds in which an attempt may still succeed."""
        is_patient = self._deadline is None or isinstance(failure, UnavailableError)
        patience_s = self._patience_s if is_patient else math.inf
        if failure.facts.get("cause") in _CONFIGURATION_CAUSES:
            patience_s = min(patience_s, CONFIGURATION_PATIENCE_S)
        end = self._begin + patience_s
        if self._deadline is not None:
            end = min(end, self._deadline)
        return end - monotonic()

    def _described(self, failure: PoolingError) -> PoolingError:
        if self._attempts == 1:
            return failure
        if failure.facts.get("cause") == NOT_CONNECTED and self._unavailable is not None:
            failure = self._unavailable
        text = f"{failure}; {self._attempts} attempts in {monotonic() - self._begin:.1f} s"
        return type(failure)(text, field=failure.field, facts=failure.facts)


def _least_wait_s(failure: PoolingError) -> float:
    """Return the least seconds before a retry; infinity if the error is permanent."""
    if failure.facts.get("retryable") == "false":
        return math.inf
    is_stated = isinstance(failure, OverloadedError) and "retry_after_s" in failure.facts
    if is_stated or isinstance(failure, UnavailableError):
        return float(failure.facts.get("retry_after_s", FIRST_WAIT_S / 2))
    return math.inf
