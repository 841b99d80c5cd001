"""State of a resumable stream, without I/O: unanswered requests, attempts, back-off, deadline.

Unary calls are retried by gRPC; `pooling_client._channel` has their policy.
"""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import Generic, TypeVar

from pooling_engine import InternalError, PoolingError, UnavailableError

Token = TypeVar("Token")
Request = bytes | PoolingError  # an error takes the place of a request that could not be made
Reply = bytes | PoolingError

# Attempts without a reply in between, over about 3 s. A unary call has fewer: it loses less work.
ATTEMPTS = 6
FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.1, 2.0


class Backlog(Generic[Token]):
    """Requests without a reply, numbered from the first request of the call.

    Not synchronised; the stream drivers guard it.

    Attributes:
        answered: number of requests that have their reply.
        is_complete: True once the last request has been added.
    """

    def __init__(self) -> None:
        self.answered = 0
        self.is_complete = False
        self._entries: deque[tuple[Token, Request]] = deque()
        self._failure: Exception | None = None

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def taken(self) -> int:
        """Number of requests that have been added."""
        return self.answered + len(self._entries)

    def add(self, entry: tuple[Token, Request]) -> None:
        """Add the next request, with the token that identifies it to the caller."""
        self._entries.append(entry)

    def complete(self, failure: Exception | None = None) -> None:
        """Mark the end of the requests; `failure` ended the caller's iterator."""
        self._failure = failure
        self.is_complete = True

    def request(self, number: int) -> Request | None:
        """Return the request of a number; None if it is not there yet or has its reply."""
        at = number - self.answered
        return self._entries[at][1] if 0 <= at < len(self._entries) else None

    def oldest(self) -> tuple[Token, Request] | None:
        """Return the request whose reply is next; None if every request has its reply."""
        return self._entries[0] if self._entries else None

    def answer(self) -> None:
        """Remove the oldest request, which has its reply."""
        self._entries.popleft()
        self.answered += 1

    def check(self) -> None:
        """Raise the error that ended the caller's iterator, if there was one."""
        if self._failure is not None:
            raise self._failure


class Retries:
    """Attempts, back-off and deadline of a stream that is resumed after a lost connection.

    Args:
        timeout_s: seconds for all attempts together; None for no deadline.
    """

    def __init__(self, timeout_s: float | None) -> None:
        self._end = None if timeout_s is None else monotonic() + timeout_s
        self._answered = 0
        self._restart()

    def _restart(self) -> None:
        self._failures, self._backoff_s = 0, FIRST_BACKOFF_S

    def left_s(self) -> float | None:
        """Return the seconds until the deadline, at least 0; None without a deadline."""
        return None if self._end is None else max(0.0, self._end - monotonic())

    def backoff_s(self, failure: PoolingError, answered: int) -> float:
        """Return the seconds to wait after a failed attempt, before the next one.

        Args:
            failure: the error of the attempt.
            answered: number of requests that have their reply. Progress resets the attempts.

        Raises:
            PoolingError: `failure`, if it is permanent, the attempts are used up or the deadline
                comes before the next attempt.
        """
        if answered > self._answered:
            self._answered = answered
            self._restart()
        self._failures += 1
        wait_s = self._backoff_s
        is_too_late = self._end is not None and monotonic() + wait_s > self._end
        is_permanent = not isinstance(failure, UnavailableError)
        if is_permanent or self._failures == ATTEMPTS or is_too_late:
            raise failure
        self._backoff_s = min(2 * wait_s, MAX_BACKOFF_S)
        return wait_s


def closed_early() -> InternalError:
    """Return the error of a stream that ended while requests had no reply."""
    return InternalError("the server closed the stream early, with requests still unanswered")
