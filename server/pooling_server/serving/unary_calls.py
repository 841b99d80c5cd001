"""Unary calls: admission, message, and the choice between the polling thread and a thread pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NoReturn

import grpc

from pooling_engine import DeadlineError, PoolingError
from pooling_server.config import ServerConfig
from pooling_server.serving.call_processor import CallProcessor, PreparedCall
from pooling_server.serving.duration import INLINE_BYTES
from pooling_server.serving.error_replies import error_reply
from pooling_server.serving.executor import Admission, Executor, run_in_thread
from pooling_server.serving.limits import check_message_size
from pooling_server.serving.polling_thread import PolledCall, in_pool, polled
from pooling_server.sockets.listening import is_unix
from pooling_server.sockets.shared_memory import SharedMemory
from pooling_wire.shared_memory import NO_REGIONS, Regions

Context = grpc.ServicerContext
Prepare = Callable[[bytes, Regions], PreparedCall]


class UnaryCalls:
    """Handlers of unary calls.

    Args:
        config: limits of the server.
        executor: admits calls and grants compute slots.
        calls: computes calls, and decides which are small.
        memory: regions in which clients on Unix sockets may place tensors.
        report: gives a call the status of an error.
        fail: ends a call with an error, in the thread of its handler.
    """

    def __init__(
        self,
        config: ServerConfig,
        executor: Executor,
        calls: CallProcessor,
        memory: SharedMemory,
        report: Callable[[Context, PoolingError], None],
        fail: Callable[[Context, PoolingError], NoReturn],
    ) -> None:
        self._config = config
        self._calls = calls
        self._memory = memory
        self._fail = fail
        self.executor = executor
        self.report = report
        self.is_small = calls.is_small

    def handler(
        self, prepare: Prepare, threads: ThreadPoolExecutor, is_inline: bool
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Return the handler of a method.

        Args:
            prepare: decodes a request.
            threads: answers calls that may wait or take long.
            is_inline: receive messages in the polling thread, and answer small calls there.
        """
        prepare = partial(self._prepare, prepare)
        if is_inline:
            answer = polled(lambda call: PolledUnaryCall(self, prepare, threads, call).start())
        else:
            answer = in_pool(threads, partial(self._answer_stream_of_one, prepare))
        return grpc.stream_unary_rpc_method_handler(answer)

    def regions(self, context: Context) -> Regions:
        """Return the regions of shared memory that the client of a call may use."""
        return self._memory if is_unix(context.peer()) else NO_REGIONS

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

    def _prepare(self, prepare: Prepare, message: bytes, regions: Regions) -> PreparedCall:
        check_message_size(message, self._config)
        return prepare(message, regions)

    def _answer_stream_of_one(
        self, prepare: Prepare, requests: Iterator[bytes], context: Context
    ) -> bytes:
        """Answer a call whose message gRPC delivers in the thread of the call."""
        try:
            with self.executor.call(context.add_callback):
                message, regions = next(requests, b""), self.regions(context)
                return self.compute(partial(prepare, message, regions), regions, context)
        except grpc.RpcError:  # the client has disconnected before its message arrived
            raise
        except Exception as error:
            self._fail(context, error_reply(error))


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
    """

    __slots__ = ("_admission", "_call", "_calls", "_prepare", "_threads")

    def __init__(
        self, calls: UnaryCalls, prepare: Prepare, threads: ThreadPoolExecutor, call: PolledCall
    ) -> None:
        self._calls, self._prepare = calls, prepare
        self._threads, self._call = threads, call
        self._admission: Admission

    def start(self) -> None:
        """Admit the call and receive its message, or reject it."""
        try:
            self._admission = self._calls.executor.admit()
        except PoolingError as error:
            self._calls.report(self._call.context, error)
            self._call.end()
            return
        self._call.on_end(self._admission.finish)
        self._call.receive(self._received)

    def _received(self, message: bytes | None) -> None:
        """Answer the call in the polling thread, or begin to answer it in another."""
        context = self._call.context
        if not self._call.is_active:  # the client has disconnected before its message arrived
            self._admission.leave()
            return
        try:
            regions = self._calls.regions(context)
            prepared = self._prepare_small(message or b"", regions)
            if prepared is not None and self._calls.is_small(prepared):
                if context.time_remaining() == 0:
                    raise DeadlineError("the deadline passed before the call could be computed")
                self._end(prepared.answer(regions))
                return

            def prepare() -> PreparedCall:
                return prepared or self._prepare(message or b"", regions)

            run_in_thread(self._threads, partial(self._answer_in_thread, prepare, regions))
        except Exception as error:
            self._fail(error)

    def _prepare_small(self, message: bytes, regions: Regions) -> PreparedCall | None:
        """Decode a message; return None if it, or a region that it reads, is large."""
        if len(message) > INLINE_BYTES:
            return None
        try:
            return self._prepare(message, _SmallRegions(regions))
        except _LargeRegionError:
            return None

    def _answer_in_thread(self, prepare: Callable[[], PreparedCall], regions: Regions) -> None:
        try:
            self._end(self._calls.compute(prepare, regions, self._call.context))
        except Exception as error:
            self._fail(error)

    def _fail(self, exception: Exception) -> None:
        self._calls.report(self._call.context, error_reply(exception))
        self._end(None)

    def _end(self, reply: bytes | None) -> None:
        self._admission.leave()
        self._call.end(reply)
