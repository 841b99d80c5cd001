"""Streams in gRPC's polling thread: small items are answered there, large ones in a thread.

A stream has a thread only while a large item of it is computed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import monotonic
from typing import NamedTuple

import grpc

from pooling_engine import DeadlineError, PoolingError
from pooling_server.serving.call_processor import Item, PreparedCall
from pooling_server.serving.duration import INLINE_BYTES
from pooling_server.serving.executor import Admission, Executor, run_in_thread
from pooling_server.serving.idle import IdleWatch, Wait
from pooling_server.serving.polling_thread import PolledCall
from pooling_server.serving.rpcs import Rpc, Work
from pooling_server.serving.small_regions import LargeRegionError, small_regions
from pooling_server.serving.streams import (
    ITEMS_AHEAD,
    answer_if_active,
    idle_error,
    shutting_down,
)
from pooling_wire.shared_memory import NO_REGIONS, Regions

REST_S = 1.0  # idle time after which a stream has to be admitted again


class StreamServices(NamedTuple):
    """Parts of the server that all streams share.

    Attributes:
        executor: admits streams, and grants compute slots to large items.
        threads: answers large items.
        watch: ends streams of idle clients.
        is_small: returns True if the polling thread may answer a decoded item.
        report: sets the status of a stream that an error ends.
        regions: returns the regions of shared memory that the client of a stream may use.
    """

    executor: Executor
    threads: ThreadPoolExecutor
    watch: IdleWatch
    is_small: Callable[[PreparedCall], bool]
    report: Callable[[grpc.ServicerContext, Exception, Rpc], None]
    regions: Callable[[Rpc], Regions]


class PolledStream:
    """One stream: a state machine whose steps are the completed operations of its call.

    Replies are sent in the order of the items. An item may be computed while the reply of an
    earlier one is being sent. Each step answers at most one item, so that the polling thread can
    process other calls between them. The lock of the call guards the state.

    Args:
        services: parts of the server that all streams share.
        prepare: decodes an item; the answer to an invalid item is its error.
        call: the call of the stream.
        rpc: the stream, for authorization, times and metrics.
    """

    def __init__(
        self,
        services: StreamServices,
        prepare: Callable[[Work, Item], PreparedCall],
        call: PolledCall,
        rpc: Rpc,
    ) -> None:
        self._services, self._prepare, self._call, self._rpc = services, prepare, call, rpc
        self._regions: Regions = NO_REGIONS
        self._admission: Admission | None = None  # until the stream leaves the calls in flight
        self._wait = Wait()
        self._items: deque[tuple[Work, Item]] = deque()
        self._reply: bytes | None = None  # next to send, while another is being sent
        self._is_receiving = self._is_sending = self._is_computing = False
        self._is_last_received = self._is_closed = False
        self._has_large = False
        self._may_rest = False  # as long as all items are small
        self._resting_since: float | None = None
        self._error: Exception | None = None  # ends the stream after the replies before it

    def start(self) -> None:
        """Admit the stream and receive its first item, or reject it."""
        try:
            self._rpc.authorize()
            drain = partial(self._end, shutting_down())
            self._admission = self._services.executor.admit(drain)
            self._regions = self._services.regions(self._rpc)
        except PoolingError as error:
            self._error = error
            self._finish()
            return
        self._call.watch_client()
        self._call.on_end(partial(self._close, self._admission.finish))
        self._services.watch.add(self._wait)
        self._advance()

    def _received(self, message: bytes | None) -> None:
        with self._call.lock:
            self._is_receiving = False
            if message is None:
                self._is_last_received = True
            elif self._error is None:
                work, error = self._rpc.receive(len(message)), self._resume(len(message))
                self._items.append((work, Item(message, monotonic(), error, self._regions)))
            next_item = self._advance()
        self._begin(next_item)

    def _sent(self) -> None:
        with self._call.lock:
            self._is_sending = False
            reply, self._reply = self._reply, None
            self._send(reply)
            next_item = self._advance()
        self._begin(next_item)

    def _begin(self, received: tuple[Work, Item] | None) -> None:
        """Answer an item in the polling thread, or begin to answer it in another thread."""
        if received is None:
            return
        work, item = received
        answer = partial(self._answer, work, item)
        try:
            prepared = self._prepare_small(work, item)
            if prepared is not None:
                answer = partial(prepared.answer, item.regions)
                if self._services.is_small(prepared):
                    if self._call.context.time_remaining() == 0:
                        raise DeadlineError("the deadline passed before the item was computed")
                    self._answered(answer())
                    return
            run_in_thread(self._services.threads, partial(self._answer_in_thread, answer))
        except Exception as error:
            self._fail(error)

    def _prepare_small(self, work: Work, item: Item) -> PreparedCall | None:
        """Decode an item; return None if it, or a region that it reads, is large."""
        if len(item.message) > INLINE_BYTES:
            return None
        try:
            return self._prepare(work, item._replace(regions=small_regions(item.regions)))
        except LargeRegionError:
            return None

    def _answer(self, work: Work, item: Item) -> bytes:
        return self._prepare(work, item).answer(item.regions)

    def _answer_in_thread(self, answer: Callable[[], bytes]) -> None:
        """Answer an item in a compute slot, and the items that arrive in the meantime."""
        context = self._call.context
        while True:
            try:
                work = partial(answer_if_active, answer, context)
                self._answered(self._services.executor.compute(work, context.time_remaining()))
            except Exception as error:
                self._fail(error)
                return
            with self._call.lock:
                item = self._advance()
            if item is None:
                return
            answer = partial(self._answer, *item)

    def _answered(self, reply: bytes | None) -> None:
        with self._call.lock:
            self._is_computing = False
            if self._is_closed:
                self._leave()
            elif self._is_sending:
                self._reply = reply
            else:
                self._send(reply)

    def _send(self, reply: bytes | None) -> None:
        if reply is not None and self._call.is_active:
            self._is_sending = True
            self._wait.start(self._call.context.cancel)
            self._call.send(reply, self._sent)

    def _advance(self) -> tuple[Work, Item] | None:
        """Receive ahead, end the stream if it is done, and return the next item to answer."""
        if not self._call.is_active:
            return None
        item = None
        if self._items and not self._is_computing and self._reply is None:
            item, self._is_computing = self._items.popleft(), True
        has_room = len(self._items) < ITEMS_AHEAD and not self._is_receiving
        if has_room and not self._is_last_received and self._error is None:
            self._is_receiving = True
            self._call.receive(self._received)
        if self._is_computing:
            self._wait.pause()
        elif self._is_sending:
            self._wait.start(self._call.context.cancel)
        else:
            self._wait.start(self._end_idle)
            self._rest()
        self._finish_if_done()
        return item

    def _finish_if_done(self) -> None:
        is_busy = self._items or self._is_computing or self._is_sending
        if not is_busy and (self._is_last_received or self._error is not None):
            self._finish()

    def _finish(self) -> None:
        """Send the status."""
        self._wait.pause()
        self._leave()
        if self._error is not None:
            self._services.report(self._call.context, self._error, self._rpc)
        else:
            self._call.context.set_trailing_metadata(self._rpc.succeed())
        self._call.end()

    def _end_idle(self) -> None:
        self._end(idle_error(self._services.watch.limit_s))

    def _end(self, error: Exception) -> None:
        """End the stream after the replies to the items received so far."""
        with self._call.lock:
            self._error = self._error or error
            if self._call.is_active:
                self._finish_if_done()

    def _fail(self, exception: Exception) -> None:
        """End the stream after the replies that are ready."""
        with self._call.lock:
            self._items.clear()
            self._error = exception
            self._answered(None)
            self._advance()

    def _close(self, finish: Callable[[], None]) -> None:
        """End the counts of a stream whose status was sent or whose client has disconnected."""
        with self._call.lock:
            self._is_closed = True
            self._items.clear()
            self._reply = None
            if not self._is_computing:
                self._leave()
        self._services.watch.discard(self._wait)
        finish()

    def _rest(self) -> None:
        """Leave the limit of calls in flight: there is nothing to do."""
        if self._may_rest and self._resting_since is None and self._admission is not None:
            self._resting_since = monotonic()
            self._services.executor.rest()

    def _resume(self, size: int) -> PoolingError | None:
        """Count towards the limit of calls in flight, or return the error of the next item.

        Items of a busy stream are not rejected. A stream with large items never rests.
        """
        is_large = size > INLINE_BYTES
        if self._resting_since is not None:
            is_checked = is_large or monotonic() - self._resting_since >= REST_S
            try:
                self._services.executor.resume(is_checked=is_checked)
            except PoolingError as error:
                return error
            self._resting_since = None
        self._has_large = self._has_large or is_large
        self._may_rest = not self._has_large
        return None

    def _leave(self) -> None:
        admission, self._admission = self._admission, None
        if admission is None:
            return
        if self._resting_since is not None:
            self._services.executor.resume(is_checked=False)
            self._resting_since = None
        admission.leave()
