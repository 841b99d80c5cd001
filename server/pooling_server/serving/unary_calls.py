"""Unary calls: admission, message, and the choice between the polling thread and a thread pool."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Any, NoReturn

import grpc

from pooling_engine import DeadlineError, OverloadedError, PoolingError
from pooling_server.config import ServerConfig
from pooling_server.serving.call_processor import CallProcessor, PreparedCall
from pooling_server.serving.error_replies import error_reply
from pooling_server.serving.executor import RETRY_AFTER_S, Admission, Executor
from pooling_server.serving.limits import check_message_size
from pooling_server.serving.polling_thread import PollingThreadExecutor, in_pool
from pooling_server.sockets.listening import is_unix
from pooling_server.sockets.shared_memory import SharedMemory
from pooling_wire.shared_memory import NO_REGIONS, Regions

Context = grpc.ServicerContext
Prepare = Callable[[bytes, Regions], PreparedCall]

# Limits of a call that is answered in the polling thread, where it delays all other calls: the size
# of its message and of a region that it reads, and its predicted duration. See
# docs/adr/0013-polling-thread.md.
INLINE_BYTES = 256 << 10
INLINE_US = 3000


class UnaryCalls:
    """Handlers of unary calls.

    Args:
        config: limits of the server.
        executor: admits calls and grants compute slots.
        calls: computes calls; its `never_waits` decides whether calls are answered inline.
        memory: regions in which clients on Unix sockets may place tensors.
        fail: ends a call with an error.
    """

    def __init__(
        self,
        config: ServerConfig,
        executor: Executor,
        calls: CallProcessor,
        memory: SharedMemory,
        fail: Callable[[Context, PoolingError], NoReturn],
    ) -> None:
        self._config = config
        self._executor = executor
        self._calls = calls
        self._memory = memory
        self._fail = fail

    def handler(
        self, prepare: Prepare, threads: ThreadPoolExecutor, is_inline: bool
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Return the handler of a method.

        Args:
            prepare: decodes a request.
            threads: answers calls that may wait or take long.
            is_inline: receive messages in the polling thread, and answer small calls there.
        """
        if not is_inline:
            answer = in_pool(threads, partial(self._answer_stream_of_one, prepare))
            return grpc.stream_unary_rpc_method_handler(answer)
        pool = PollingThreadExecutor(threads, partial(ReceivedCall, self, prepare))
        return grpc.stream_unary_rpc_method_handler(in_pool(pool, self._answer_received))

    def admit(self) -> Admission:
        """Admit a call.

        Raises:
            OverloadedError, UnavailableError: the call is rejected.
        """
        return self._executor.admit()

    def regions(self, peer: str) -> Regions:
        """Return the regions of shared memory that the client at an address may use."""
        return self._memory if is_unix(peer) else NO_REGIONS

    def prepare(self, prepare: Prepare, message: bytes, regions: Regions) -> PreparedCall:
        """Check the size of a message and decode it.

        Raises:
            PoolingError: the message is invalid or exceeds a limit.
        """
        check_message_size(message, self._config)
        return prepare(message, regions)

    def is_small(self, prepared: PreparedCall) -> bool:
        """Return True if a call may be answered in the polling thread."""
        return prepared.predicted_us <= INLINE_US and self._calls.never_waits

    def _answer_stream_of_one(
        self, prepare: Prepare, requests: Iterator[bytes], context: Context
    ) -> bytes:
        """Answer a call whose message gRPC delivers in the thread of the call."""
        try:
            with self._executor.call(context.add_callback):
                message, regions = next(requests, b""), self.regions(context.peer())
                prepared = partial(self.prepare, prepare, message, regions)
                return self._compute(prepared, regions, context)
        except grpc.RpcError:  # the client has disconnected before its message arrived
            raise
        except Exception as error:
            self._fail(context, error_reply(error))

    def _answer_received(self, received: ReceivedCall, context: Context) -> bytes:
        """Answer a call whose message is there, in the polling thread or in a thread."""
        try:
            with received.admission or nullcontext():
                if received.error is not None:
                    raise received.error
                if received.is_inline:
                    if context.time_remaining() == 0:
                        raise DeadlineError("the deadline passed before the call could be computed")
                    return received.prepared().answer(received.regions)
                return self._compute(received.prepared, received.regions, context)
        except Exception as error:
            self._fail(context, error_reply(error))

    def _compute(
        self, prepared: Callable[[], PreparedCall], regions: Regions, context: Context
    ) -> bytes:
        """Answer a call in a compute slot."""

        def work() -> bytes:
            if not context.is_active():  # the client has disconnected while the call waited
                return b""
            return prepared().answer(regions)

        return self._executor.compute(work, context.time_remaining())


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


class ReceivedCall:
    """Reception of one call by the polling thread, and the argument of its handler.

    Attributes:
        admission: the admission; None if the call was rejected.
        error: reason of a rejection, or of an invalid message; None for a valid call.
        regions: regions of shared memory that the client may use.
        is_inline: True if the call is answered in the polling thread.
    """

    def __init__(self, calls: UnaryCalls, prepare: Prepare) -> None:
        self._calls = calls
        self._prepare = prepare
        self._prepared: PreparedCall | None = None
        self._message = b""
        self._is_answered = threading.Lock()
        self.admission: Admission | None = None
        self.error: Exception | None = None
        self.regions = NO_REGIONS
        self.is_inline = False
        try:
            self.admission = calls.admit()
        except PoolingError as error:
            self.error = error

    @property
    def is_rejected(self) -> bool:
        """True if the call was not admitted."""
        return self.admission is None

    def receive(self, message: bytes, peer: Callable[[], str]) -> bool:
        """Take the message; decode it here unless it, or a region that it reads, is large."""
        self._message = message
        try:
            self.regions = self._calls.regions(peer())
            if len(message) <= INLINE_BYTES:
                small = _SmallRegions(self.regions)
                self._prepared = self._calls.prepare(self._prepare, message, small)
                self.is_inline = self._calls.is_small(self._prepared)
        except _LargeRegionError:
            pass
        except Exception as error:  # including bugs, which the handler reports
            self.error, self.is_inline = error, True
        return self.is_inline

    def refuse(self) -> None:
        """Reject a call for which no thread could be started; its handler runs at once."""
        self.error = OverloadedError(
            "the system can start no more threads; retry later",
            facts={"retry_after_s": str(RETRY_AFTER_S)},
        )

    def begin(self) -> bool:
        """Return True for the first handler of the call.

        A pool of threads that fails to start one may still run the handler that it has queued.
        """
        return self._is_answered.acquire(blocking=False)

    def prepared(self) -> PreparedCall:
        """Return the decoded call.

        Raises:
            PoolingError: the message is invalid or exceeds a limit.
        """
        if self._prepared is None:
            self._prepared = self._calls.prepare(self._prepare, self._message, self.regions)
        return self._prepared

    def abandon(self) -> None:
        """End the count of a call whose client has gone before the message arrived."""
        if self.admission is not None:
            with self.admission:
                pass

    def finish(self) -> None:
        """End the count of a call whose reply was sent or whose client has gone."""
        if self.admission is not None:
            self.admission.finish()
