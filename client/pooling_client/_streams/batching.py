"""Batches of the calls that a caller has ready, for threads and for asyncio.

The calls are taken from the caller's iterable as they come. While messages are in flight, several
calls gather, and share the next message. No call waits for another one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, Generic, TypeVar

from pooling_client._calls.batches import Batch, Pending
from pooling_client._forks import Origin
from pooling_client._streams.backlog import Request

Result = TypeVar("Result")


class Batches(Generic[Result]):
    """Iterator over batches; another thread takes the calls from the caller.

    Args:
        calls: the calls of the caller.
        pending: empty.

    Attributes:
        origin: the process that takes the calls.
    """

    def __init__(self, calls: Iterable[Any], pending: Pending[Result]) -> None:
        self._calls, self._pending = calls, pending
        self._changed = threading.Condition()  # guards all that follows
        self._is_started = self._is_complete = self._is_closed = False
        self._failure: BaseException | None = None
        self.origin = Origin()

    def __iter__(self) -> Iterator[tuple[Batch[Result], Request]]:
        return self

    def __next__(self) -> tuple[Batch[Result], Request]:
        with self._changed:
            if not self._is_started:
                self._is_started = True
                threading.Thread(target=self._take, name="pooling-calls", daemon=True).start()
            self._changed.wait_for(lambda: self._pending or self._is_complete or self._is_closed)
            if self._pending and not self._is_closed:
                self._changed.notify()
                return self._pending.take()
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        raise StopIteration

    def close(self) -> None:
        """Take no further call."""
        if self.origin.is_here:  # in a forked process, the lock may be held for ever
            with self._changed:
                self._is_closed = True
                self._changed.notify_all()

    def _take(self) -> None:
        failure = None
        try:
            for call in self._calls:
                if not self._add(call):
                    return
        except BaseException as error:  # raised to the caller after the results before it
            failure = error
        with self._changed:
            self._failure, self._is_complete = failure, True
            self._changed.notify_all()

    def _add(self, call: Any) -> bool:
        """Add a call and wait for room; return False after `close`."""
        with self._changed:
            self._pending.add(call)
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._pending.is_full or self._is_closed)
            return not self._is_closed


class AsyncBatches(Generic[Result]):
    """Asynchronous iterator over batches; another task takes the calls from the caller.

    Args:
        calls: the calls of the caller.
        pending: empty.
    """

    def __init__(self, calls: AsyncIterator[Any], pending: Pending[Result]) -> None:
        self._calls, self._pending = calls, pending
        self._changed = asyncio.Condition()
        self._taking: asyncio.Task[None] | None = None
        self._is_complete = False
        self._failure: BaseException | None = None

    def __aiter__(self) -> AsyncIterator[tuple[Batch[Result], Request]]:
        return self

    async def __anext__(self) -> tuple[Batch[Result], Request]:
        if self._taking is None:
            self._taking = asyncio.create_task(self._take())
        async with self._changed:
            await self._changed.wait_for(lambda: self._pending or self._is_complete)
            if self._pending:
                self._changed.notify_all()
                return self._pending.take()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        raise StopAsyncIteration

    def close(self) -> None:
        """Take no further call."""
        if self._taking is not None:
            self._taking.cancel()

    async def _take(self) -> None:
        try:
            async for call in self._calls:
                async with self._changed:
                    self._pending.add(call)
                    self._changed.notify_all()
                    await self._changed.wait_for(lambda: not self._pending.is_full)
        except BaseException as error:  # raised to the caller after the results before it
            self._failure = error
        async with self._changed:
            self._is_complete = True
            self._changed.notify_all()
