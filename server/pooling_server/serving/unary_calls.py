"""Unary calls: admission, message, and the choice between the polling thread and a thread pool."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import Any, NoReturn

import grpc

from pooling_engine import UnavailableError
from pooling_server.config import ServerConfig
from pooling_server.serving.call_processor import CallProcessor, PreparedCall
from pooling_server.serving.executor import Executor
from pooling_server.serving.idle import IdleWatch, Wait
from pooling_server.serving.limits import check_message_size
from pooling_server.serving.polling_thread import in_pool
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
        self.rpcs = rpcs
        self._has_unix = any(map(is_unix, split_addresses(config.listen)))
        self.report = report
        self.is_small = calls.is_small

    def checked(self, prepare: Prepare) -> Prepare:
        """Return a decoder that checks the size of the request first."""
        return partial(self._prepare, prepare)

    def handler(
        self, name: str, prepare: Prepare, threads: ThreadPoolExecutor
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Return the handler of a method whose calls are answered in threads.

        Args:
            name: name of the method.
            prepare: decodes a request.
            threads: the threads.
        """
        answer = in_pool(threads, partial(self._answer_stream_of_one, name, self.checked(prepare)))
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
        rpc, work, wait = Rpc(self.rpcs, name, context), None, Wait()
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
