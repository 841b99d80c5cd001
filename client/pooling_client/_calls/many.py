"""Calls of `forward_many` and `backward_many` as items of a stream."""

from __future__ import annotations

from typing import Any, TypeVar

from pooling_client._calls.base import PreparedCall
from pooling_client._streams.backlog import Reply, Request
from pooling_engine import InvalidSpecError, PoolingError

Result = TypeVar("Result")


def item_of(
    id_: int, call: Any, prepared_type: type[PreparedCall[Any, Result]]
) -> tuple[PreparedCall[Any, Result] | None, Request]:
    """Return a call with its item, or None with the error of an invalid one."""
    if not isinstance(call, prepared_type.call_type):
        expected, actual = prepared_type.call_type.__name__, type(call).__name__
        text = f"calls has an item of type {actual}; each must be a {expected}"
        return None, InvalidSpecError(text, field="calls")
    prepared = prepared_type(call)
    return prepared, prepared.item(id_)


def outcome_of(
    prepared: PreparedCall[Any, Result] | None, reply: Reply, return_exceptions: bool
) -> Result | PoolingError:
    """Return the result of a call, or its error if errors are to be returned.

    Raises:
        PoolingError: the call failed, and errors are to be raised.
    """
    outcome: Result | PoolingError
    if isinstance(reply, PoolingError):
        outcome = reply
    else:
        assert prepared is not None
        outcome = prepared.item_result(reply)
    if isinstance(outcome, PoolingError) and not return_exceptions:
        raise outcome
    return outcome
