"""Blocking transport."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import suppress

import grpc

import pooling_wire
from pooling_client import _channel
from pooling_client._connection import Connection, Pairs
from pooling_client._forks import Origin, is_forked, keep_unfinished
from pooling_client._retries import Retries
from pooling_client._steps import Session
from pooling_client._streams.backlog import Reply, Request, Token
from pooling_client._streams.sync import Feed, end_later
from pooling_client._targets import described
from pooling_client._transports.sync_shared import SharedStreams
from pooling_engine import DeadlineError, PoolingError, UnavailableError

_CHECK = "/grpc.health.v1.Health/Check"
_STATE_TIMEOUT_S = 1.0
_GRACE_S = 1.0  # after the deadline of gRPC, if gRPC does not end the call
_kept: list[object] = []  # of the parent process, or interrupted


class GrpcTransport:
    """Transport with one gRPC call for each request or stream. Safe to share between threads.

    Another transport needs the same methods: the client uses `share`, and the driver `send`,
    `stream` and `wait`.

    Args:
        connection: arguments of the connections, among which calls rotate.
        session: state of the client.
        timeout_s: seconds of attempts after which a stream without a deadline fails.
    """

    def __init__(self, connection: Connection, session: Session, timeout_s: float) -> None:
        self._connection = connection
        self._session = session
        self._timeout_s = timeout_s
        self._closed = threading.Event()
        self._opening = threading.Lock()
        self._channels: list[grpc.Channel] = []
        self._shared: list[SharedStreams] = []
        self._open()

    def _open(self) -> None:
        self._channels = self._connection.channels()
        self._turns = _channel.turns_of(self._channels)
        metadata = self._connection.current_metadata
        self._shared = [SharedStreams(channel, metadata) for channel in self._channels]
        self._shared_turns: Iterator[SharedStreams] = itertools.cycle(self._shared)

    def send(self, method: str, request: bytes, timeout_s: float) -> bytes:
        """Send a request of a unary method and return the reply.

        Raises:
            PoolingError: the call failed.
            ValueError: the client is closed.
        """
        methods = next(self._turns)
        if timeout_s <= 0:
            raise self._late(methods.channel)
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = methods.unary(method)
        metadata = self._connection.current_metadata()
        try:
            if is_forked():
                return self._guarded(call, request, timeout_s, metadata)
            return call(request, timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            raise self._decoded(error, methods.channel) from None
        except ValueError as error:
            raise self._unless_closed(error) from None
        except (KeyboardInterrupt, SystemExit):
            self._reopen()
            raise

    def _guarded(
        self,
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes],
        request: bytes,
        timeout_s: float,
        metadata: Pairs | None,
    ) -> bytes:
        """Call in a forked process, where the threads of gRPC may have stopped."""
        future = call.future(request, timeout=timeout_s, metadata=metadata)
        try:
            return future.result(timeout=timeout_s + _GRACE_S)
        except grpc.FutureTimeoutError:
            self.renew()  # closing these channels would wait without end
            text = (
                "gRPC does not answer in this process, which was forked while another thread used "
                'gRPC; start it with "spawn" or "forkserver", or fork while no call is in flight'
            )
            raise UnavailableError(text, facts={"retryable": "false"}) from None

    def share(
        self, method: str, item: bytes, deadline: float, *, is_alone: bool = False
    ) -> bytes | None:
        """Send an item over a stream that calls share, and return its reply.

        Args:
            method: path of a streaming method.
            item: bytes of the item.
            deadline: time of `time.monotonic`.
            is_alone: send the item over a stream without other calls, because it may take long.

        Returns:
            The reply; None if the call is to be sent as a unary call.

        Raises:
            PoolingError: the timeout has passed, the client was closed meanwhile, or the stream
                ended without the reply to an item sent alone.
        """
        if self._closed.is_set():
            return None
        shared = next(self._shared_turns)
        try:
            reply = shared.exchange(method, item, deadline, is_alone=is_alone)
        except TimeoutError:
            raise _channel.not_in_time(described(self._connection.target)) from None
        except ConnectionError:
            if self._closed.is_set():
                raise _channel.closed_during_call() from None
            raise UnavailableError("the stream ended before the reply") from None
        except BaseException:
            if shared.is_broken:
                self._reopen()
            raise
        if reply is None and self._closed.is_set():
            raise _channel.closed_during_call()
        return reply

    def wait(self, seconds: float, connects: bool) -> None:
        """Wait between two attempts.

        Args:
            seconds: seconds to wait.
            connects: connect meanwhile. Versions of gRPC before 1.80 connect only while a call
                waits, so a health check waits for the connection.

        Raises:
            UnavailableError: the client was closed meanwhile.
        """
        checks = []
        with suppress(ValueError):  # closed meanwhile
            for channel in self._channels if connects else ():
                method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_CHECK)
                checks.append(method.future(b"", timeout=seconds, wait_for_ready=True))
        is_closed = self._closed.wait(seconds)
        for check in checks:
            check.cancel()
        if is_closed:
            raise _channel.closed_during_call()

    def stream(
        self,
        method: str,
        requests: Iterator[tuple[Token, Request]],
        *,
        window: int,
        timeout_s: float | None,
    ) -> Generator[tuple[Token, Reply], None, None]:
        """Yield the reply to each request, in order, with the token of the request.

        An error in place of a request is not sent; it is yielded in place of the reply. After a
        lost connection, the unanswered requests are sent again over a new stream.

        Args:
            method: path of a streaming method.
            requests: pairs of a token and a request, consumed in another thread.
            window: maximum number of requests without a reply.
            timeout_s: seconds for the whole exchange; None for no deadline.

        Raises:
            PoolingError: the stream failed for good.
            UnsupportedError: the process was forked meanwhile.
        """
        methods = next(self._turns)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        patience_s = self._session.patience_s
        if deadline is None:
            patience_s = min(patience_s, self._timeout_s)
        retries = Retries(deadline, self._session.throttle, patience_s)
        feed, origin = Feed(requests, window), Origin()
        try:
            while True:
                if retries.left_s() == 0:
                    raise self._late(methods.channel)
                metadata = self._connection.current_metadata()
                try:
                    stream = methods.stream(method)(
                        feed.send(), timeout=retries.left_s(), metadata=metadata
                    )
                except ValueError as error:
                    raise self._unless_closed(error) from None
                try:
                    for token, reply in feed.receive(stream):
                        yield token, reply
                        origin.check()
                    self._session.throttle.succeed()
                    return
                except grpc.RpcError as error:
                    failure = self._decoded(error, methods.channel)
                finally:
                    if not origin.is_here:
                        keep_unfinished(stream)
                    elif feed.is_interrupted:
                        end_later(stream, feed)
                        self._reopen()
                    else:
                        stream.cancel()
                seconds = retries.wait_s(failure, feed.answered)
                self.wait(seconds, isinstance(failure, UnavailableError))
                feed.wait(retries.left_s())
        finally:
            if origin.is_here and not feed.is_interrupted:
                feed.close()

    def _decoded(self, error: grpc.RpcError, channel: grpc.Channel) -> PoolingError:
        """Return our error for one of gRPC."""
        if self._closed.is_set():
            return _channel.closed_during_call()
        target = described(self._connection.target)
        failure = pooling_wire.decode_error(error, target)
        if type(failure) is DeadlineError and not _is_connected(channel):
            return _channel.not_connected(target)
        return failure

    def _late(self, channel: grpc.Channel) -> PoolingError:
        """Return the error of a call whose deadline passed before an attempt was sent."""
        if self._closed.is_set():
            return _channel.closed_during_call()
        target = described(self._connection.target)
        error = _channel.not_in_time if _is_connected(channel) else _channel.not_connected
        return error(target)

    @property
    def is_closed(self) -> bool:
        """True after `close`."""
        return self._closed.is_set()

    def _unless_closed(self, error: ValueError) -> Exception:
        """Return the error of a closed channel as ours; another one unchanged."""
        return _channel.closed_during_call() if self._closed.is_set() else error

    def close(self) -> None:
        """Close the channels. Calls in flight are cancelled; later ones raise ValueError."""
        self._turns = iter(_raise_closed, None)
        self._closed.set()
        for shared in self._shared:
            shared.close()
        for channel in self._channels:
            channel.close()

    def renew(self) -> None:
        """Use new channels in a forked process, from the next call on.

        The other channels are kept: their destructors could wait for threads that a forked process
        does not have.
        """
        if not self._closed.is_set():
            self._closed, self._opening = threading.Event(), threading.Lock()
        self._reopen()

    def _reopen(self) -> None:
        """Use new channels from the next call on, and keep the others.

        This is also necessary after a signal handler, such as that of Ctrl-C, has raised an error
        within gRPC: a lock of the channel may still be held, and an event may be lost.
        """
        _kept.extend([*self._channels, *self._shared])
        if not self._closed.is_set():
            self._channels = []
            self._shared = []
            self._turns = iter(self._reopened, None)
            self._shared_turns = iter(self._reopened_shared, None)

    def _reopened(self) -> _channel.Methods:
        self._open_once()
        return next(self._turns)

    def _reopened_shared(self) -> SharedStreams:
        self._open_once()
        return next(self._shared_turns)

    def _open_once(self) -> None:
        with self._opening:
            if not self._channels:
                self._open()


def _raise_closed() -> _channel.Methods:
    raise _channel.closed()


def _is_connected(channel: grpc.Channel) -> bool:
    states: queue.SimpleQueue[grpc.ChannelConnectivity] = queue.SimpleQueue()
    channel.subscribe(states.put)  # reports the current state from another thread
    try:
        return states.get(timeout=_STATE_TIMEOUT_S) is grpc.ChannelConnectivity.READY
    except queue.Empty:
        return True
    finally:
        channel.unsubscribe(states.put)
