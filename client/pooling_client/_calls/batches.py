"""Calls of `forward_many` and `backward_many` that share a message.

A message of several calls costs about as much as a message of one. Calls of the same layer and the
same shape are joined along their batch axis; their results are parts of the result, bit for bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from pooling_client._calls.base import PreparedCall
from pooling_client._limits import BATCH_BYTES, BATCH_CALLS
from pooling_client._streams.backlog import Reply, Request
from pooling_engine import InvalidSpecError, PoolingError

Result = TypeVar("Result")


def check_many(
    calls: Any, return_exceptions: Any, kinds: tuple[type, ...], call_type: type
) -> None:
    """Check the arguments of a stream of many calls.

    Args:
        calls: the calls.
        return_exceptions: True or False.
        kinds: legal kinds of iterables.
        call_type: type of a call.

    Raises:
        InvalidSpecError: an argument is invalid.
    """
    if not isinstance(return_exceptions, bool | np.bool_):
        text = f"return_exceptions is {return_exceptions!r}; it must be True or False"
        raise InvalidSpecError(text, field="return_exceptions")
    if not isinstance(calls, kinds) and not hasattr(calls, "__getitem__"):
        text = f"calls is of type {type(calls).__name__}; it must be an iterable of "
        raise InvalidSpecError(text + call_type.__name__, field="calls")


class Batch(NamedTuple, Generic[Result]):
    """Calls of one message.

    Attributes:
        calls: the calls, in order; empty if the message is the error of an invalid call.
        joined: the call that is sent: the only one, or all of them as one.
    """

    calls: Sequence[PreparedCall[Any, Result]]
    joined: PreparedCall[Any, Result] | None

    def outcomes(self, reply: Reply) -> list[Result | PoolingError] | None:
        """Return the result or the error of each call.

        Args:
            reply: the reply to the message, or the error of an invalid call.

        Returns:
            The outcomes; None if each call is to be sent alone, because one of them may be the
            reason why the joined call has failed.
        """
        if isinstance(reply, PoolingError) or self.joined is None:
            assert isinstance(reply, PoolingError)
            return [reply]
        result = self.joined.item_result(reply)
        if len(self.calls) == 1:
            return [result]
        if isinstance(result, PoolingError):
            return None
        return list(self.joined.parts(result, self.calls))


class Pending(Generic[Result]):
    """Calls that were taken from the caller, but not sent. Not synchronised.

    Args:
        prepared_type: class of the prepared calls.
        message_bytes: limit of the server for the tensors of a message.
    """

    def __init__(
        self, prepared_type: type[PreparedCall[Any, Result]], message_bytes: int = BATCH_BYTES
    ) -> None:
        self._type = prepared_type
        self._most_bytes = min(message_bytes, BATCH_BYTES)
        self._calls: deque[PreparedCall[Any, Result] | PoolingError] = deque()
        self._ids = 0
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def is_full(self) -> bool:
        """True if no further call is to be taken."""
        return len(self._calls) >= BATCH_CALLS or self._bytes >= BATCH_BYTES

    def add(self, call: Any) -> None:
        """Add a call of the caller, which may be invalid."""
        if isinstance(call, self._type.call_type):
            prepared = self._type(call)
            self._calls.append(prepared)
            self._bytes += prepared.total_bytes
            return
        expected, actual = self._type.call_type.__name__, type(call).__name__
        text = f"calls has an item of type {actual}; each must be a {expected}"
        self._calls.append(InvalidSpecError(text, field="calls"))

    def take(self) -> tuple[Batch[Result], Request]:
        """Remove the first calls that can share a message, and return them with the message."""
        first = self._calls.popleft()
        if isinstance(first, PoolingError):
            return Batch((), None), first
        calls, size, load = [first], first.total_bytes, first.load
        while self._calls and first.can_join(self._calls[0]):
            following = self._calls[0]
            assert not isinstance(following, PoolingError)
            size += following.total_bytes
            load += following.load
            if size > self._most_bytes or load > 1:
                break
            calls.append(following)
            self._calls.popleft()
        self._bytes -= sum(call.total_bytes for call in calls)
        joined = first if len(calls) == 1 else first.joined(calls)
        self._ids += 1
        return Batch(calls, joined), joined.item(self._ids)
