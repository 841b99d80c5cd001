"""Small calls that share one stream, without I/O: their order, and the rule for opening a stream.

Replies arrive in the order of the items, so the oldest call without a reply gets the next one.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Generic, TypeVar

Waiter = TypeVar("Waiter")

IDLE_S = 1.0  # a stream is opened for calls that follow within this time, and closed after it
SILENCE_S = 1.0  # without any reply, after which a call that times out ends the stream
FIRST_PAUSE_S, MAX_PAUSE_S = 1.0, 60.0


class SharedCalls(Generic[Waiter]):
    """Calls on one stream. Not synchronised; the drivers guard it.

    Args:
        now: time of `time.monotonic`.

    Attributes:
        has_replied: True after the first reply: the server, and all proxies, support the stream.
        is_ended: True once no call may be added.
    """

    def __init__(self, now: float) -> None:
        self.has_replied = False
        self.is_ended = False
        self._unanswered: deque[Waiter] = deque()  # in the order of the items
        self._unsent: deque[tuple[Waiter, bytes]] = deque()
        self._is_sending = False
        self._abandoned: set[Waiter] = set()
        self._silent_since = self._used_at = now

    def __len__(self) -> int:
        """Return the number of calls without a reply."""
        return len(self._unanswered)

    def add(self, waiter: Waiter, item: bytes, now: float) -> bool:
        """Add a call.

        Returns:
            True if the item is to be sent at once; otherwise `sent` will return it.
        """
        if not self._unanswered:
            self._silent_since = now
        self._used_at = now
        self._unanswered.append(waiter)
        if self._is_sending:
            self._unsent.append((waiter, item))
            return False
        self._is_sending = True
        return True

    def sent(self) -> bytes | None:
        """Return the item to send next, after one was sent; None if there is none."""
        if self._unsent:
            return self._unsent.popleft()[1]
        self._is_sending = False
        return None

    def replied(self, now: float) -> Waiter | None:
        """Return the call to which a reply belongs; None if its caller does not wait any more.

        A reply may arrive after the end of the stream, when its call was sent again.
        """
        self.has_replied = True
        if not self._unanswered:
            return None
        self._silent_since = self._used_at = now
        waiter = self._unanswered.popleft()
        if waiter in self._abandoned:
            self._abandoned.remove(waiter)
            return None
        return waiter

    def abandon(self, waiter: Waiter) -> None:
        """Remove a call whose item was not sent, or ignore its reply."""
        for entry in self._unsent:
            if entry[0] is waiter:
                self._unsent.remove(entry)
                self._unanswered.remove(waiter)
                return
        self._abandoned.add(waiter)

    def oldest(self) -> Waiter | None:
        """Return the oldest call whose caller waits for the reply."""
        for waiter in self._unanswered:
            if waiter not in self._abandoned:
                return waiter
        return None

    def end(self) -> list[Waiter]:
        """End the stream; return the calls to be sent again in another way."""
        self.is_ended = True
        waiting = [waiter for waiter in self._unanswered if waiter not in self._abandoned]
        self._unanswered.clear()
        self._unsent.clear()
        return waiting

    def until(self, deadline: float) -> float:
        """Return the time until which a call may wait, at most its deadline.

        The first call of a stream waits less: a proxy may hold back items or replies until the end
        of the stream.
        """
        return deadline if self.has_replied else min(deadline, self._silent_since + SILENCE_S)

    def is_silent(self, now: float) -> bool:
        """Return True if calls have waited too long without any reply."""
        return bool(self._unanswered) and now - self._silent_since >= SILENCE_S

    def idle_s(self, now: float) -> float:
        """Return the seconds since the last use."""
        return now - self._used_at


class Openings:
    """Rule for opening a stream for one method of one connection.

    A single call is sent as a unary call, because opening a stream takes longer. After a stream
    that ended without a reply, calls are unary for a while, twice as long after each further
    failure.
    """

    def __init__(self) -> None:
        self._last_call = self._not_before = -math.inf
        self._pause_s = FIRST_PAUSE_S

    def allows(self, now: float) -> bool:
        """Return True if a call that begins now may open a stream."""
        is_frequent = now - self._last_call < IDLE_S
        self._last_call = now
        return is_frequent and now >= self._not_before

    def ended(self, has_replied: bool, now: float) -> None:
        """Take account of a stream that has ended."""
        if has_replied:
            self._pause_s = FIRST_PAUSE_S
            return
        self._not_before = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, MAX_PAUSE_S)
