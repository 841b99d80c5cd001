"""Asyncio transport."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator

import grpc

import pooling_wire
from pooling_client import _channel
from pooling_client._connection import Connection
from pooling_client._retries import Retries
from pooling_client._steps import Session
from pooling_client._streams.aio import Feed
from pooling_client._streams.backlog import Reply, Request, Token
from pooling_client._targets import described
from pooling_client._transports.aio_shared import SharedStreams
from pooling_engine import DeadlineError, PoolingError, UnsupportedError

_inherited: list[_LoopChannels] = []  # of the parent process
_GRACE_S = 2.0  # after the deadline of gRPC, if gRPC does not end the call
_process: int | None = None  # the first process that has opened a channel


class _LoopChannels:
    """Channels for the tasks of one event loop. Channels of gRPC cannot change loops."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: Connection) -> None:
        self.loop = loop
        self._channels = connection.async_channels()
        self.turns = _channel.turns_of(self._channels)
        metadata = connection.current_metadata
        self._shared = [SharedStreams(each.stream_stream, metadata) for each in self._channels]
        self.shared_turns = itertools.cycle(self._shared)

    async def close(self) -> None:
        """Close the channels, in their own event loop."""
        for shared in self._shared:
            shared.close()
        for channel in self._channels:
            await channel.close()


class AsyncGrpcTransport:
    """Transport with one gRPC call for each request or stream, for the tasks of any event loop.

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
        self._is_closed = False
        self._opening = threading.Lock()
        self._loops: list[_LoopChannels] = []
        self._latest: _LoopChannels | None = None

    def _channels(self) -> _LoopChannels:
        """Return the channels of the running event loop."""
        loop, latest = asyncio.get_running_loop(), self._latest
        if latest is None or latest.loop is not loop:
            latest = self._enter(loop)
        return latest

    def _enter(self, loop: asyncio.AbstractEventLoop) -> _LoopChannels:
        with self._opening:
            if self._is_closed:
                raise _channel.closed()
            self._loops = [each for each in self._loops if not each.loop.is_closed()]
            found = next((each for each in self._loops if each.loop is loop), None)
            if found is None:
                _check_process()
                found = _LoopChannels(loop, self._connection)
                self._loops.append(found)
            self._latest = found
            return found

    async def send(self, method: str, request: bytes, timeout_s: float) -> bytes:
        """Send a request of a unary method and return the reply.

        Raises:
            PoolingError: the call failed.
            ValueError: the client is closed.
        """
        methods = next(self._channels().turns)
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = methods.unary(method)
        metadata = self._connection.current_metadata()
        target = self._connection.target
        if timeout_s <= 0:  # grpcio 1.85 may never end such a call
            raise self._late(methods.channel)
        try:
            async with asyncio.timeout(timeout_s + _GRACE_S):
                return await call(request, timeout=timeout_s, metadata=metadata)
        except TimeoutError:
            raise _channel.not_in_time(described(target)) from None
        except grpc.RpcError as error:
            raise self._decoded(error, methods.channel) from None
        except (asyncio.CancelledError, grpc.aio.UsageError) as error:
            raise self._unless_closed(error) from None

    async def share(self, method: str, item: bytes, deadline: float) -> bytes | None:
        """Send an item over a stream that calls share, and return its reply.

        Args:
            method: path of a streaming method.
            item: bytes of the item.
            deadline: time of `time.monotonic`.

        Returns:
            The reply; None if the call is to be sent as a unary call.

        Raises:
            PoolingError: the timeout has passed, or the client was closed meanwhile.
            ValueError: the client is closed.
        """
        shared = next(self._channels().shared_turns)
        try:
            reply = await shared.exchange(method, item, deadline)
        except TimeoutError:
            raise _channel.not_in_time(described(self._connection.target)) from None
        if reply is None and self._is_closed:
            raise _channel.closed_during_call()
        return reply

    async def wait(self, seconds: float) -> None:
        """Wait between two attempts.

        Raises:
            UnavailableError: the client was closed meanwhile.
        """
        await asyncio.sleep(seconds)
        if self._is_closed:
            raise _channel.closed_during_call()

    async def stream(
        self,
        method: str,
        requests: AsyncIterator[tuple[Token, Request]],
        *,
        window: int,
        timeout_s: float | None,
    ) -> AsyncGenerator[tuple[Token, Reply], None]:
        """Yield the reply to each request, in order, with the token of the request.

        An error in place of a request is not sent; it is yielded in place of the reply. After a
        lost connection, the unanswered requests are sent again over a new stream.

        Args:
            method: path of a streaming method.
            requests: pairs of a token and a request, consumed in another task.
            window: maximum number of requests without a reply.
            timeout_s: seconds for the whole exchange; None for no deadline.

        Raises:
            PoolingError: the stream failed for good.
        """
        methods = next(self._channels().turns)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        patience_s = self._session.patience_s
        if deadline is None:
            patience_s = min(patience_s, self._timeout_s)
        retries = Retries(deadline, self._session.throttle, patience_s)
        feed = Feed(requests, window)
        taking = asyncio.create_task(feed.take())
        try:
            while True:
                if retries.left_s() == 0:  # as in `send`
                    raise self._late(methods.channel)
                metadata = self._connection.current_metadata()
                try:
                    stream = methods.stream(method)(
                        feed.send(), timeout=retries.left_s(), metadata=metadata
                    )
                except grpc.aio.UsageError as error:
                    raise self._unless_closed(error) from None
                try:
                    async for entry in feed.receive(stream):
                        yield entry
                    self._session.throttle.succeed()
                    return
                except grpc.RpcError as error:
                    failure = self._decoded(error, methods.channel)
                except asyncio.CancelledError as error:
                    raise self._unless_closed(error) from None
                finally:
                    stream.cancel()
                await self.wait(retries.wait_s(failure, feed.answered))
                await feed.wait(retries.left_s())
        finally:
            taking.cancel()

    def _decoded(self, error: grpc.RpcError, channel: grpc.aio.Channel) -> PoolingError:
        """Return our error for one of gRPC."""
        if self._is_closed:
            return _channel.closed_during_call()
        target = described(self._connection.target)
        failure = pooling_wire.decode_error(error, target)
        if type(failure) is DeadlineError and not _is_connected(channel):
            return _channel.not_connected(target)
        return failure

    def _late(self, channel: grpc.aio.Channel) -> DeadlineError:
        """Return the error of a call whose deadline passed before an attempt was sent."""
        target = described(self._connection.target)
        error = _channel.not_in_time if _is_connected(channel) else _channel.not_connected
        return error(target)

    @property
    def is_closed(self) -> bool:
        """True after `close`."""
        return self._is_closed

    def _unless_closed(self, error: BaseException) -> BaseException:
        """Return the cancellation by `close` as our error; another one unchanged."""
        task = asyncio.current_task()
        is_task_cancelled = task is not None and task.cancelling() > 0
        if self._is_closed and not is_task_cancelled:
            return _channel.closed_during_call()
        return error

    async def close(self) -> None:
        """Close the channels. Calls in flight are cancelled; later ones raise ValueError."""
        with self._opening:
            self._is_closed, self._latest = True, None
            loops, self._loops = self._loops, []
        running = asyncio.get_running_loop()
        for each in loops:
            if each.loop is running:
                await each.close()
            elif each.loop.is_running():
                closing = asyncio.run_coroutine_threadsafe(each.close(), each.loop)
                await asyncio.wrap_future(closing)

    def renew(self) -> None:
        """Use new channels in a forked process, from the next call on."""
        _inherited.extend(self._loops)
        self._opening, self._loops, self._latest = threading.Lock(), [], None


def _is_connected(channel: grpc.aio.Channel) -> bool:
    return channel.get_state() is grpc.ChannelConnectivity.READY


def _check_process() -> None:
    """Reject a process whose parent has used gRPC for asyncio: calls would wait without end.

    Raises:
        UnsupportedError: the process was forked.
    """
    global _process
    if _process is None:
        _process = os.getpid()
    if _process != os.getpid():
        raise UnsupportedError(
            "AsyncPoolingClient cannot be used in a process forked from one that has used it, "
            "because gRPC's asyncio threads do not survive a fork; start the process with "
            '"spawn" or "forkserver", or use PoolingClient'
        )
