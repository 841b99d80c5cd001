"""One stream: items in, replies out, in order. What is wrong with an item stays in its reply."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from queue import SimpleQueue

import grpc

from pooling_engine import UnavailableError
from pooling_server.executor import Executor

ITEMS_AHEAD = 2  # received while one is computed; HTTP/2's flow control holds back the rest

Item = bytes


def answer_items(
    answer: Callable[[Item], bytes],
    items: Iterator[Item],
    context: grpc.ServicerContext,
    executor: Executor,
) -> Iterator[bytes]:
    """The replies to the items of a stream.

    The stream is one call in flight; each item waits for a slot. Once the server drains, what has
    been received is still answered, then the stream ends.

    Args:
        answer: computes one reply, or puts into it why not; it never raises.

    Raises:
        OverloadedError, UnavailableError: from the executor, before the first item; or the server
            is draining.
        DeadlineError: the deadline passed before an item had a slot.
    """
    with closing(_Inbox(items)) as inbox, executor.stream(inbox.end):
        for item in inbox.received():
            work = partial(_answer_if_awaited, answer, item, context)
            reply = executor.compute(work, context.time_remaining())
            if reply is None:
                return
            yield reply


def _answer_if_awaited(
    answer: Callable[[Item], bytes], item: Item, context: grpc.ServicerContext
) -> bytes | None:
    """The reply; None if the caller has gone while the item waited."""
    return answer(item) if context.is_active() else None


class _Inbox:
    """Receives items ahead, in a thread of its own: the next arrive while one is computed.

    The thread ends with the stream, whoever ended it.
    """

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self._queue: SimpleQueue[Item | UnavailableError | None] = SimpleQueue()
        self._room = threading.Semaphore(ITEMS_AHEAD)
        self._is_closed = False

    def received(self) -> Iterator[Item]:
        """The items, until the caller has sent its last or is gone.

        Raises:
            UnavailableError: the server is draining, and what had been received has been yielded.
        """
        threading.Thread(target=self._receive, name="pooling-stream", daemon=True).start()
        while (item := self._queue.get()) is not None:
            if isinstance(item, UnavailableError):
                raise item
            self._room.release()
            yield item

    def end(self) -> None:
        """Takes no more items: the server is draining."""
        self._queue.put(
            UnavailableError("the server is stopping; ask another for what has no reply yet")
        )

    def close(self) -> None:
        """Lets the thread go, if it waits for room; gRPC lets it go if it waits for an item."""
        self._is_closed = True
        self._room.release()

    def _receive(self) -> None:
        try:
            while True:
                self._room.acquire()
                if self._is_closed:
                    return
                self._queue.put(next(self._items))
        except (StopIteration, grpc.RpcError):  # the last item, or the caller is gone
            pass
        finally:
            self._queue.put(None)
