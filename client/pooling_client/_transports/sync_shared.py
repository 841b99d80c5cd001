"""Small calls of all threads over one stream for each connection and method.

Each calling thread sends its own item. One of them, the leader, waits for the events of the stream
and passes the replies to the other threads. When the leader has its own reply, the thread of the
oldest other call becomes the leader. One more thread for each open stream watches deadlines and
closes an idle stream.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable
from time import monotonic

import grpc

from pooling_client._connection import Pairs
from pooling_client._transports.polled_stream import ENDED, REPLY, SENT, PolledStream
from pooling_client._transports.shared_calls import IDLE_S, Openings, SharedCalls

_log = logging.getLogger("pooling_client")


class Waiter:
    """A thread that waits for a reply.

    Attributes:
        changed: released when the other attributes are set.
        reply: the reply, or None if the stream has ended.
        leads: True if the thread is to wait for the events of the stream.
        until: time of `time.monotonic` at which the thread stops waiting.
    """

    __slots__ = ("changed", "is_done", "leads", "reply", "until")

    def __init__(self, until: float) -> None:
        self.changed = threading.Lock()
        self.changed.acquire()
        self.reply: bytes | None = None
        self.is_done = self.leads = False
        self.until = until

    def finish(self, reply: bytes | None) -> None:
        """Give the thread its reply, or None if the stream has ended."""
        self.reply, self.is_done = reply, True
        self.changed.release()


class SharedStream:
    """An open stream for the calls of all threads.

    Attributes:
        is_broken: True after an interrupt: an event of gRPC may be lost.
    """

    def __init__(self, stream: PolledStream) -> None:
        self._stream = stream
        self._calls: SharedCalls[Waiter] = SharedCalls(monotonic())
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._leader: Waiter | None = None
        self._is_receiving = True  # the stream begins with it; later from the first call on
        self.is_broken = False
        self._next_check = 0.0  # time at which the watching thread looks again
        threading.Thread(target=self._watch, name="pooling-shared-stream", daemon=True).start()

    @property
    def is_ended(self) -> bool:
        """True if calls need another stream."""
        return self._calls.is_ended

    @property
    def has_replied(self) -> bool:
        """True after the first reply."""
        return self._calls.has_replied

    def exchange(self, item: bytes, deadline: float, *, is_alone: bool) -> bytes | None:
        """Send an item and return its reply.

        Args:
            item: the item.
            deadline: time of `time.monotonic`.
            is_alone: do not send the item behind others, and wait for its reply until the deadline:
                it may take long.

        Returns:
            The reply; None if the stream has ended without it, so that the call is to be repeated,
            or if it is busy.

        Raises:
            TimeoutError: the deadline has passed.
            ConnectionError: the stream has ended without the reply to an item sent alone.
        """
        waiter, now, calls = Waiter(deadline), monotonic(), self._calls
        is_waiting = False
        try:
            with self._lock:
                if calls.is_ended or (is_alone and len(calls)):
                    return None
                if calls.add(waiter, item, now):
                    self._stream.send(item)
                # From here on, the server computes at the same time.
                if not self._is_receiving:
                    self._is_receiving = True
                    self._stream.receive()
                if not (calls.has_replied or is_alone):
                    waiter.until = calls.until(deadline)
                if self._leader is None:
                    self._promote(waiter)
            if not waiter.leads:
                is_waiting = True
                waiter.changed.acquire(timeout=max(0, waiter.until - now))
                is_waiting = False
            if waiter.leads and not waiter.is_done:
                self._lead(waiter)
        except BaseException:  # of a signal handler, such as KeyboardInterrupt
            self._leave(waiter) if is_waiting else self._break(waiter)
            raise
        if not waiter.is_done:
            self._leave(waiter)
        if not waiter.is_done and monotonic() >= deadline:
            raise TimeoutError
        if is_alone and waiter.reply is None:
            raise ConnectionError
        return waiter.reply

    def close(self) -> None:
        """End the stream; calls without a reply get none."""
        with self._lock:
            self._end()

    def _break(self, waiter: Waiter) -> None:
        """End the stream after an interrupt that may have lost an event or an item."""
        with self._lock:
            self.is_broken = True
            if self._leader is waiter:
                self._leader = None
            self._end()

    def _promote(self, waiter: Waiter) -> None:
        """Make a thread the leader."""
        waiter.leads, self._leader = True, waiter
        if waiter.until < self._next_check:
            self._changed.notify()

    def _lead(self, me: Waiter) -> None:
        """Wait for events until there is a reply to this thread, or until its time is over."""
        calls, stream = self._calls, self._stream
        while True:
            kind, reply = stream.next_event()
            with self._lock:
                if kind == REPLY and reply is not None and not calls.is_ended:
                    waiter = calls.replied(monotonic())
                    if len(calls):
                        stream.receive()
                    else:
                        self._is_receiving = False
                    if waiter is me:
                        me.reply, me.is_done = reply, True
                        self._hand_over()
                        return
                    if waiter is not None:
                        waiter.finish(reply)
                elif kind == SENT:
                    if (item := calls.sent()) is not None:
                        stream.send(item)
                elif kind == ENDED:
                    self._end()
                    break
                elif monotonic() >= me.until and not calls.is_ended:
                    return
        self._drain()

    def _drain(self) -> None:
        if not self.is_broken:  # it would wait for the lost event
            self._stream.drain()

    def _leave(self, waiter: Waiter) -> None:
        """Stop waiting for a reply, which may have arrived meanwhile."""
        with self._lock:
            if waiter.is_done:
                return
            self._calls.abandon(waiter)
            if self._leader is waiter:
                self._hand_over()
            if self._calls.is_silent(monotonic()):
                self._end()

    def _hand_over(self) -> None:
        """Let another thread lead, if one waits."""
        self._leader = None
        oldest = self._calls.oldest()
        if oldest is not None:
            self._promote(oldest)
            oldest.changed.release()

    def _end(self) -> None:
        if self._calls.is_ended:
            return
        if len(self._calls) or self.is_broken:
            self._stream.cancel()
        else:
            self._stream.finish()
        for waiter in self._calls.end():
            if waiter is not self._leader:
                waiter.finish(None)
        self._changed.notify()

    def _watch(self) -> None:
        """Wake a leader whose time is over; close the stream if it is idle."""
        with self._lock:
            while not self._calls.is_ended:
                now = monotonic()
                wait_s = IDLE_S
                if self._leader is not None:
                    wait_s = min(wait_s, self._leader.until - now)
                    if wait_s <= 0:
                        self._stream.wake()
                        wait_s = IDLE_S
                else:
                    wait_s -= self._calls.idle_s(now)
                    if wait_s <= 0:
                        self._end()
                        break
                self._next_check = now + wait_s
                self._changed.wait(wait_s)
            is_led = self._leader is not None
        if not is_led:
            self._drain()


class SharedStreams:
    """The shared streams of one connection, by method. Safe to share between threads.

    Args:
        channel: channel with one connection.
        metadata: returns the metadata of a stream.
    """

    def __init__(self, channel: grpc.Channel, metadata: Callable[[], Pairs | None]) -> None:
        self._channel = channel
        self._metadata = metadata
        self._openings: defaultdict[tuple[str, bool], Openings] = defaultdict(Openings)
        self._streams: dict[tuple[str, bool], SharedStream] = {}
        self._opening = threading.Lock()
        # Interceptors see unary calls and streams, but not the items of a stream.
        self._is_supported = type(channel).__module__ == "grpc._channel"

    def exchange(
        self, path: str, item: bytes, deadline: float, *, is_alone: bool = False
    ) -> bytes | None:
        """Send an item of a streaming method and return its reply.

        Args:
            path: path of the method.
            item: the item.
            deadline: time of `time.monotonic`.
            is_alone: send the item over a stream that carries one such item at a time.

        Returns:
            The reply; None if the call is to be sent in another way.

        Raises:
            TimeoutError: the deadline has passed.
            ConnectionError: the stream has ended without the reply to an item sent alone.
        """
        key = path, is_alone
        stream = self._streams.get(key)
        if stream is None or stream.is_ended:
            stream = self._open(key)
        return None if stream is None else stream.exchange(item, deadline, is_alone=is_alone)

    @property
    def is_broken(self) -> bool:
        """True after an interrupt of a call, until another stream is opened."""
        return any(stream.is_broken for stream in list(self._streams.values()))

    def close(self) -> None:
        """End the streams; calls without a reply get none."""
        with self._opening:
            self._is_supported = False
            for stream in self._streams.values():
                stream.close()

    def _open(self, key: tuple[str, bool]) -> SharedStream | None:
        """Open a stream, unless calls are to be unary for now."""
        with self._opening:
            now, openings = monotonic(), self._openings[key]
            stream = self._streams.get(key)
            if stream is not None and not stream.is_ended:
                return stream
            if stream is not None:
                openings.ended(stream.has_replied, now)
                del self._streams[key]
            if not openings.allows(now) or not self._is_supported:
                return None
            metadata = self._metadata()
            try:
                stream = SharedStream(PolledStream(self._channel, key[0], metadata))
            except Exception as error:
                self._is_supported = False
                _log.info("small calls share no stream with this grpcio: %r", error)
                return None
            self._streams[key] = stream
            return stream
