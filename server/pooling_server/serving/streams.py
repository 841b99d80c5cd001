"""Streams in threads: items in, replies out, in order. A reply reports the error of its item."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from queue import SimpleQueue

import grpc

from pooling_engine import UnavailableError
from pooling_server.serving.call_processor import Item
from pooling_server.serving.executor import Executor
from pooling_server.serving.idle import IdleWatch, Wait

ITEMS_AHEAD = 2  # received while one is computed; HTTP/2 flow control holds back the rest


def answer_items(
    answer: Callable[[Item], bytes],
    items: Iterator[bytes],
    context: grpc.ServicerContext,
    executor: Executor,
    watch: IdleWatch,
) -> Iterator[bytes]:
    """Yield the reply to each item of a stream.

    The stream is one call in flight; each item waits for a compute slot. When the server drains,
    the items received so far are answered, and then the stream ends.

    Args:
        answer: returns the reply to one item, including its error; an exception ends the stream.
        items: serialized items, as gRPC delivers them.
        context: context of the stream.
        executor: admits the stream and grants compute slots.
        watch: ends streams of idle clients. A client that does not read replies is cancelled,
            because no status would reach it before the unread replies.

    Raises:
        OverloadedError: the executor rejected the stream.
        UnavailableError: the server is draining, or the client sent nothing for too long.
        DeadlineError: the deadline passed before an item had a compute slot.
    """
    with (
        closing(_RequestQueue(items)) as requests,
        executor.call(context.add_callback, partial(requests.end, shutting_down())),
        _watched(watch) as wait,
    ):
        end_idle = partial(requests.end, idle_error(watch.limit_s))
        wait.start(end_idle)
        for item in requests.received():
            wait.pause()
            work = partial(answer_if_active, partial(answer, item), context)
            reply = executor.compute(work, context.time_remaining())
            if reply is None:
                return
            wait.start(context.cancel)
            yield reply
            wait.start(end_idle)


@contextmanager
def _watched(watch: IdleWatch) -> Iterator[Wait]:
    wait = Wait()
    watch.add(wait)
    try:
        yield wait
    finally:
        watch.discard(wait)


def answer_if_active(answer: Callable[[], bytes], context: grpc.ServicerContext) -> bytes | None:
    """Return the reply, or None if the client has disconnected while the item waited."""
    return answer() if context.is_active() else None


def idle_error(idle_s: float) -> UnavailableError:
    """Return the error of a stream whose client sent nothing for `idle_s` seconds."""
    return UnavailableError(
        f"the client sent nothing on this stream for {idle_s:g} s, this server's limit "
        "(--stream-idle-s); open a new stream to continue",
        facts={
            "limit": "stream_idle_s",
            "value": f"{idle_s:g}",
            "option": "--stream-idle-s",
        },
    )


def shutting_down() -> UnavailableError:
    """Return the error of a stream that a drain ends."""
    return UnavailableError(
        "the server is shutting down; resend unanswered items to another server"
    )


class _RequestQueue:
    """Queue that receives items ahead, in its own thread, while another item is computed.

    The thread ends with the stream, whichever side ended it.
    """

    def __init__(self, items: Iterator[bytes]) -> None:
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
                self._queue.put(Item(next(self._items), time.monotonic()))
        except (StopIteration, grpc.RpcError):  # the last item, or a disconnected client
            pass
        finally:
            self._queue.put(None)
