"""Requests of a resumable stream that have no reply yet, without I/O."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from pooling_engine import InternalError, PoolingError

Token = TypeVar("Token")
Request = bytes | PoolingError  # an error takes the place of a request that could not be made
Reply = bytes | PoolingError


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
        self._failure: BaseException | None = None

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def taken(self) -> int:
        """Number of requests that have been added."""
        return self.answered + len(self._entries)

    def add(self, entry: tuple[Token, Request]) -> None:
        """Add the next request, with the token that identifies it to the caller."""
        self._entries.append(entry)

    def complete(self, failure: BaseException | None = None) -> None:
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


def closed_early() -> InternalError:
    """Return the error of a stream that ended while requests had no reply."""
    return InternalError("the server closed the stream early, with requests still unanswered")
