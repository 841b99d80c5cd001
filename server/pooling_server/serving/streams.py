"""One stream: items in, replies out, in order. What is wrong with an item stays in its reply."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from queue import SimpleQueue

import grpc

from pooling_engine import UnavailableError
from pooling_server.serving.executor import Executor

ITEMS_AHEAD = 2  # received while one is computed; HTTP/2's flow control holds back the rest

Item = bytes


def answer_items(
    answer: Callable[[Item], bytes],
    items: Iterator[Item],
    context: grpc.ServicerContext,
    executor: Executor,
    idle_s: float,
) -> Iterator[bytes]:
    """The replies to the items of a stream.

    The stream is one call in flight; each item waits for a slot. Once the server drains, what has
    been received is still answered, then the stream ends.

    Args:
        answer: computes one reply, or puts into it why not; what it raises ends the stream.
        idle_s: seconds that the caller may let the stream wait, or 0 for any. One that takes no
            replies is cancelled: no error would reach it before them.

    Raises:
        OverloadedError, UnavailableError: from the executor, before the first item; or the server
            is draining, or the caller has sent nothing for too long.
        DeadlineError: the deadline passed before an item had a slot.
    """
    with (
        closing(_Inbox(items)) as inbox,
        executor.call(context.add_callback, partial(inbox.end, _draining())),
        closing(_Patience(idle_s)) as patience,
    ):
        end_idle = partial(inbox.end, _idle(idle_s))
        patience.begin(end_idle)
        for item in inbox.received():
            patience.pause()
            work = partial(_answer_if_awaited, answer, item, context)
            reply = executor.compute(work, context.time_remaining())
            if reply is None:
                return
            patience.begin(context.cancel)
            yield reply
            patience.begin(end_idle)


def _answer_if_awaited(
    answer: Callable[[Item], bytes], item: Item, context: grpc.ServicerContext
) -> bytes | None:
    """The reply; None if the caller has gone while the item waited."""
    return answer(item) if context.is_active() else None


def _idle(idle_s: float) -> UnavailableError:
    return UnavailableError(
        f"the caller has sent nothing on this stream for {idle_s:g} s, the most this server waits "
        "(--stream-idle-s); open another for what is to come",
        facts={
            "limit": "stream_idle_s",
            "value": f"{idle_s:g}",
            "option": "--stream-idle-s",
        },
    )


def _draining() -> UnavailableError:
    return UnavailableError("the server is stopping; ask another for what has no reply yet")


class _Patience:
    """Ends a wait for the caller that has become too long.

    One timer for a stream, set anew when it goes off: items come far more often.

    Args:
        limit_s: how long a wait may be, in seconds; 0: any.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._wait: tuple[float, Callable[[], object]] | None = None
        self._timer: threading.Timer | None = None
        if limit_s:
            self._set(limit_s)

    def begin(self, end: Callable[[], object]) -> None:
        """A wait begins; `end` is called if it becomes too long."""
        self._wait = time.monotonic(), end

    def pause(self) -> None:
        """The wait is over: it is the caller who waits."""
        self._wait = None

    def close(self) -> None:
        """Ends nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        self._limit_s = 0

    def _set(self, seconds: float) -> None:
        self._timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), self._look)
        self._timer.name, self._timer.daemon = "pooling-patience", True
        self._timer.start()

    def _look(self) -> None:
        wait = self._wait
        since, end = wait or (time.monotonic(), None)
        left_s = since + self._limit_s - time.monotonic()
        if self._limit_s and left_s > 0:
            self._set(left_s)
        elif self._limit_s and end is not None:
            end()


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
            UnavailableError: it was ended, and what had been received has been yielded.
        """
        threading.Thread(target=self._receive, name="pooling-stream", daemon=True).start()
        while (item := self._queue.get()) is not None:
            if isinstance(item, UnavailableError):
                raise item
            self._room.release()
            yield item

    def end(self, why: UnavailableError) -> None:
        """Takes no more items."""
        self._queue.put(why)

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
