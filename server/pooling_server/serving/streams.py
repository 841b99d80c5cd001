"""Streams: items in, replies out, in order. An error of one item is reported in its reply."""

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

ITEMS_AHEAD = 2  # received while one is computed; HTTP/2 flow control holds back the rest

Item = bytes


def answer_items(
    answer: Callable[[Item], bytes],
    items: Iterator[Item],
    context: grpc.ServicerContext,
    executor: Executor,
    idle_s: float,
) -> Iterator[bytes]:
    """Yield the reply to each item of a stream.

    The stream is one call in flight; each item waits for a compute slot. When the server drains,
    the items received so far are answered, and then the stream ends.

    Args:
        answer: returns the reply to one item, including its error; an exception ends the stream.
        items: serialized items, as gRPC delivers them.
        context: context of the stream.
        executor: admits the stream and grants compute slots.
        idle_s: idle timeout of the client in seconds; 0 disables it. A client that does not read
            replies is cancelled, because no status would reach it before the unread replies.

    Raises:
        OverloadedError: the executor rejected the stream.
        UnavailableError: the server is draining, or the client sent nothing for too long.
        DeadlineError: the deadline passed before an item had a compute slot.
    """
    with (
        closing(_RequestQueue(items)) as requests,
        executor.call(context.add_callback, partial(requests.end, _shutting_down())),
        closing(_IdleTimer(idle_s)) as idle_timer,
    ):
        end_idle = partial(requests.end, _idle(idle_s))
        idle_timer.start(end_idle)
        for item in requests.received():
            idle_timer.pause()
            work = partial(_answer_if_active, answer, item, context)
            reply = executor.compute(work, context.time_remaining())
            if reply is None:
                return
            idle_timer.start(context.cancel)
            yield reply
            idle_timer.start(end_idle)


def _answer_if_active(
    answer: Callable[[Item], bytes], item: Item, context: grpc.ServicerContext
) -> bytes | None:
    """Return the reply, or None if the client has disconnected while the item waited."""
    return answer(item) if context.is_active() else None


def _idle(idle_s: float) -> UnavailableError:
    return UnavailableError(
        f"the client sent nothing on this stream for {idle_s:g} s, this server's limit "
        "(--stream-idle-s); open a new stream to continue",
        facts={
            "limit": "stream_idle_s",
            "value": f"{idle_s:g}",
            "option": "--stream-idle-s",
        },
    )


def _shutting_down() -> UnavailableError:
    return UnavailableError(
        "the server is shutting down; resend unanswered items to another server"
    )


class _IdleTimer:
    """Timer that calls a function when the stream has waited too long for its client.

    One timer thread serves the whole stream. It is not restarted for every item, but checks the
    start of the current wait each time it expires, because items arrive far more often.

    Args:
        limit_s: maximum duration of one wait in seconds; 0 disables the timer.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._wait: tuple[float, Callable[[], object]] | None = None
        self._timer: threading.Timer | None = None
        if limit_s:
            self._schedule(limit_s)

    def start(self, on_timeout: Callable[[], object]) -> None:
        """Start a wait; `on_timeout` is called if the wait lasts too long."""
        self._wait = time.monotonic(), on_timeout

    def pause(self) -> None:
        """End the current wait: the server is computing."""
        self._wait = None

    def close(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
        self._limit_s = 0

    def _schedule(self, seconds: float) -> None:
        self._timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), self._check)
        self._timer.name, self._timer.daemon = "pooling-idle-timer", True
        self._timer.start()

    def _check(self) -> None:
        wait = self._wait
        since, on_timeout = wait or (time.monotonic(), None)
        left_s = since + self._limit_s - time.monotonic()
        if self._limit_s and left_s > 0:
            self._schedule(left_s)
        elif self._limit_s and on_timeout is not None:
            on_timeout()


class _RequestQueue:
    """Queue that receives items ahead, in its own thread, while another item is computed.

    The thread ends with the stream, whichever side ended it.
    """

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self._queue: SimpleQueue[Item | UnavailableError | None] = SimpleQueue()
        self._room = threading.Semaphore(ITEMS_AHEAD)
        self._is_closed = False

    def received(self) -> Iterator[Item]:
        """Yield the items until the client has sent its last one or has disconnected.

        Raises:
            UnavailableError: `end` was called, and the items received before were yielded.
        """
        threading.Thread(target=self._receive, name="pooling-stream", daemon=True).start()
        while (item := self._queue.get()) is not None:
            if isinstance(item, UnavailableError):
                raise item
            self._room.release()
            yield item

    def end(self, error: UnavailableError) -> None:
        """Make `received` raise the error after the items received so far."""
        self._queue.put(error)

    def close(self) -> None:
        """End the thread if it waits for room; gRPC ends it if it waits for an item."""
        self._is_closed = True
        self._room.release()

    def _receive(self) -> None:
        try:
            while True:
                self._room.acquire()
                if self._is_closed:
                    return
                self._queue.put(next(self._items))
        except (StopIteration, grpc.RpcError):  # the last item, or a disconnected client
            pass
        finally:
            self._queue.put(None)
