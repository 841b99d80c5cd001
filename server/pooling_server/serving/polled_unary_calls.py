"""Unary calls in gRPC's polling thread: small ones are answered there, large ones in a thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pooling_engine import DeadlineError, PoolingError
from pooling_server.serving.call_processor import PreparedCall
from pooling_server.serving.duration import INLINE_BYTES
from pooling_server.serving.executor import Admission, run_in_thread
from pooling_server.serving.idle import Wait
from pooling_server.serving.polling_thread import PolledCall, Start
from pooling_server.serving.rpcs import Rpc, Work
from pooling_server.serving.small_regions import LargeRegionError, small_regions
from pooling_server.serving.unary_calls import Prepare, UnaryCalls
from pooling_wire.shared_memory import Regions


def start_of(calls: UnaryCalls, name: str, prepare: Prepare, threads: ThreadPoolExecutor) -> Start:
    """Return the function that starts calls of a method in the polling thread.

    Args:
        calls: parts of the server that all unary calls share.
        name: name of the method.
        prepare: decodes a request.
        threads: answers calls that may wait or take long.
    """
    checked = calls.checked(prepare)

    def start(call: PolledCall) -> None:
        rpc = Rpc(calls.rpcs, name, call.context)
        PolledUnaryCall(calls, checked, threads, call, rpc).start()

    return start


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
        self._call.on_end(self._finish)
        try:
            self._calls.watch.add(self._wait)
            self._wait.start(self._end_idle)
            self._call.receive(self._received)
        except BaseException:
            self._admission.leave()
            raise

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
            return self._prepare(work, message, small_regions(regions))
        except LargeRegionError:
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
        try:
            self._calls.report(self._call.context, error, self._rpc, self._work)
        finally:  # also without memory for the report
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
