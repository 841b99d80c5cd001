"""Unary calls: admission, message, and the choice between the polling thread and a thread pool."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import Any, NoReturn

import grpc

from pooling_engine import DeadlineError, PoolingError, UnavailableError
from pooling_server.config import ServerConfig
from pooling_server.serving.call_processor import CallProcessor, PreparedCall
from pooling_server.serving.duration import INLINE_BYTES
from pooling_server.serving.executor import Admission, Executor, run_in_thread
from pooling_server.serving.idle import IdleWatch, Wait
from pooling_server.serving.limits import check_message_size
from pooling_server.serving.polling_thread import PolledCall, Start, in_pool
from pooling_server.serving.rpcs import Rpc, Rpcs, Work
from pooling_server.sockets.listening import is_unix, split_addresses
from pooling_server.sockets.shared_memory import SharedMemory
from pooling_wire.shared_memory import NO_REGIONS, Regions

Context = grpc.ServicerContext
Prepare = Callable[[Work, bytes, Regions], PreparedCall]


def late_message(limit_s: float) -> UnavailableError:
    """Return the error of a call whose message did not arrive in time."""
    return UnavailableError(
        f"the message of this call did not arrive within {limit_s:g} s, this server's limit "
        "(--stream-idle-s); send it again",
        facts={
            "limit": "stream_idle_s",
            "value": f"{limit_s:g}",
            "option": "--stream-idle-s",
        },
    )


class UnaryCalls:
    """Handlers of unary calls.

    Args:
        config: limits of the server.
        executor: admits calls and grants compute slots.
        calls: computes calls, and decides which are small.
        memory: regions in which clients on Unix sockets may place tensors.
        watch: ends calls whose message does not arrive, or whose reply is not read.
        rpcs: state that all RPCs share.
        report: gives a call the status of an error.
        fail: ends a call with an error, in the thread of its handler.
    """

    def __init__(
        self,
        config: ServerConfig,
        executor: Executor,
        calls: CallProcessor,
        memory: SharedMemory,
        watch: IdleWatch,
        rpcs: Rpcs,
        report: Callable[[Context, Exception, Rpc, Work | None], None],
        fail: Callable[[Context, Exception, Rpc, Work | None], NoReturn],
    ) -> None:
        self._config = config
        self._calls = calls
        self._memory = memory
        self._fail = fail
        self.executor = executor
        self.watch = watch
        self._rpcs = rpcs
        self._has_unix = any(map(is_unix, split_addresses(config.listen)))
        self.report = report
        self.is_small = calls.is_small

    def start(self, name: str, prepare: Prepare, threads: ThreadPoolExecutor) -> Start:
        """Return the function that starts calls of a method in the polling thread.

        Args:
            name: name of the method.
            prepare: decodes a request.
            threads: answers calls that may wait or take long.
        """
        prepare = partial(self._prepare, prepare)

        def start(call: PolledCall) -> None:
            rpc = Rpc(self._rpcs, name, call.context)
            PolledUnaryCall(self, prepare, threads, call, rpc).start()

        return start

    def handler(
        self, name: str, prepare: Prepare, threads: ThreadPoolExecutor
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Return the handler of a method whose calls are answered in threads.

        Args:
            name: name of the method.
            prepare: decodes a request.
            threads: the threads.
        """
        prepare = partial(self._prepare, prepare)
        answer = in_pool(threads, partial(self._answer_stream_of_one, name, prepare))
        return grpc.stream_unary_rpc_method_handler(answer)

    def regions(self, rpc: Rpc) -> Regions:
        """Return the regions of shared memory that the client of a call may use."""
        return self._memory if self._has_unix and is_unix(rpc.peer) else NO_REGIONS

    def compute(
        self, prepared: Callable[[], PreparedCall], regions: Regions, context: Context
    ) -> bytes:
        """Answer a call in a compute slot.

        Raises:
            PoolingError: the call is invalid, or its deadline passed before a slot was free.
        """

        def work() -> bytes:
            if not context.is_active():  # the client has disconnected while the call waited
                return b""
            return prepared().answer(regions)

        return self.executor.compute(work, context.time_remaining())

    def idle_error(self) -> UnavailableError:
        """Return the error of a call whose message does not arrive."""
        return late_message(self.watch.limit_s)

    def _prepare(
        self, prepare: Prepare, work: Work, message: bytes, regions: Regions
    ) -> PreparedCall:
        check_message_size(message, self._config)
        return prepare(work, message, regions)

    def _answer_stream_of_one(
        self, name: str, prepare: Prepare, requests: Iterator[bytes], context: Context
    ) -> bytes:
        """Answer a call whose message gRPC delivers in the thread of the call."""
        rpc, work, wait = Rpc(self._rpcs, name, context), None, Wait()
        try:
            rpc.authorize()
            with self.executor.call(context.add_callback):
                self.watch.add(wait)
                if not context.add_callback(partial(self.watch.discard, wait)):
                    self.watch.discard(wait)
                message, regions = self._first(requests, wait), self.regions(rpc)
                work = rpc.receive(len(message))
                work.authorize()
                work.reserve(len(message))
                reply = self.compute(partial(prepare, work, message, regions), regions, context)
                work.succeed(len(reply))
        except grpc.RpcError:  # the client has disconnected before its message arrived
            raise
        except Exception as error:
            self._fail(context, error, rpc, work)
        finally:
            if work is not None:
                work.release()
        context.set_trailing_metadata(rpc.succeed())
        wait.start(context.cancel)
        return reply

    def _first(self, requests: Iterator[bytes], wait: Wait) -> bytes:
        """Return the message of a call; it is received in another thread, to limit the wait.

        Raises:
            grpc.RpcError: the client has disconnected.
            UnavailableError: the message did not arrive in time.
        """
        arrived: SimpleQueue[bytes | Exception] = SimpleQueue()
        wait.start(lambda: arrived.put(self.idle_error()))
        receive = partial(_receive_first, requests, arrived)
        threading.Thread(target=receive, name="pooling-message", daemon=True).start()
        message = arrived.get()
        wait.pause()
        if isinstance(message, Exception):
            raise message
        return message


def _receive_first(requests: Iterator[bytes], arrived: SimpleQueue[bytes | Exception]) -> None:
    try:
        arrived.put(next(requests, b""))
    except Exception as error:  # the client has disconnected, or the call has ended
        arrived.put(error)


class _LargeRegionError(Exception):
    """A message refers to a large region; a thread has to decode it."""


class _SmallRegions:
    """Lookup of regions that decoding in the polling thread may copy."""

    def __init__(self, regions: Regions) -> None:
        self._regions = regions

    def find(self, handle: bytes) -> memoryview:
        """Return the region of a handle, as `Regions.find` does.

        Raises:
            _LargeRegionError: the region is larger than `INLINE_BYTES`.
        """
        region = self._regions.find(handle)
        if len(region) > INLINE_BYTES:
            raise _LargeRegionError
        return region


class PolledUnaryCall:
    """A unary call that the polling thread receives, and answers if it is small.

    Args:
        calls: parts of the server that all unary calls share.
        prepare: decodes the request.
        threads: answers the call if it is large.
        call: operations of the call.
        rpc: the call, for authorization, times and metrics.
    """

    __slots__ = (
        "_admission",
        "_call",
        "_calls",
        "_is_late",
        "_prepare",
        "_rpc",
        "_threads",
        "_wait",
        "_work",
    )

    def __init__(
        self,
        calls: UnaryCalls,
        prepare: Prepare,
        threads: ThreadPoolExecutor,
        call: PolledCall,
        rpc: Rpc,
    ) -> None:
        self._calls, self._prepare = calls, prepare
        self._threads, self._call, self._rpc = threads, call, rpc
        self._admission: Admission
        self._work: Work | None = None
        self._wait = Wait()
        self._is_late = False  # the message has not arrived in time

    def start(self) -> None:
        """Admit the call and receive its message, or reject it."""
        try:
            self._rpc.authorize()
            self._admission = self._calls.executor.admit()
        except PoolingError as error:
            self._calls.report(self._call.context, error, self._rpc, None)
            self._call.end()
            return
        self._calls.watch.add(self._wait)
        self._call.on_end(self._finish)
        self._wait.start(self._end_idle)
        self._call.receive(self._received)

    def _received(self, message: bytes | None) -> None:
        """Answer the call in the polling thread, or begin to answer it in another."""
        if not self._call.is_active:  # the client has disconnected before its message arrived
            if not self._is_late:
                self._admission.leave()
            return
        self._wait.pause()
        message = message or b""
        try:
            regions = self._calls.regions(self._rpc)
            self._work = work = self._rpc.receive(len(message))
            work.authorize()
            work.reserve(len(message))
            prepared = self._prepare_small(work, message, regions)
            if prepared is not None and self._calls.is_small(prepared):
                if self._call.context.time_remaining() == 0:
                    raise DeadlineError("the deadline passed before the call could be computed")
                self._succeed(work, prepared.answer(regions))
                return
            with self._call.lock:
                self._call.watch_client()
            answer = partial(self._answer_in_thread, work, message, regions, prepared)
            run_in_thread(self._threads, answer)
        except Exception as error:
            self._fail(error)

    def _prepare_small(self, work: Work, message: bytes, regions: Regions) -> PreparedCall | None:
        """Decode a message; return None if it, or a region that it reads, is large."""
        if len(message) > INLINE_BYTES:
            return None
        try:
            small = regions if regions is NO_REGIONS else _SmallRegions(regions)
            return self._prepare(work, message, small)
        except _LargeRegionError:
            return None

    def _answer_in_thread(
        self, work: Work, message: bytes, regions: Regions, prepared: PreparedCall | None
    ) -> None:
        def prepare() -> PreparedCall:
            return prepared or self._prepare(work, message, regions)

        try:
            self._succeed(work, self._calls.compute(prepare, regions, self._call.context))
        except Exception as error:
            self._fail(error)

    def _succeed(self, work: Work, reply: bytes) -> None:
        work.succeed(len(reply))
        trailers = self._rpc.succeed()
        self._leave()
        self._call.reply(reply, trailers)

    def _fail(self, error: Exception) -> None:
        self._calls.report(self._call.context, error, self._rpc, self._work)
        self._leave()
        self._call.end()

    def _leave(self) -> None:
        """End the count of calls in flight; wait until the client has read the reply."""
        self._admission.leave()
        self._wait.start(self._call.context.cancel)

    def _end_idle(self) -> None:
        """Reject the call, because its message has not arrived in time."""
        with self._call.lock:
            if not (self._call.is_receiving and self._call.is_active):
                return
            self._is_late = True
            self._fail(self._calls.idle_error())

    def _finish(self) -> None:
        """End the counts of a call whose status was sent or whose client has disconnected."""
        self._calls.watch.discard(self._wait)
        if self._work is not None:
            self._work.release()
        self._admission.finish()
