"""gRPC handlers of the service: admission, threads, and errors of calls and streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NoReturn

import grpc

import pooling_wire
from pooling_engine import PoolingError
from pooling_engine.errors import LOST_DEVICE
from pooling_server.config import ServerConfig
from pooling_server.serving.call_processor import CallProcessor
from pooling_server.serving.error_replies import abort, error_reply
from pooling_server.serving.executor import Executor
from pooling_server.serving.limits import check_message_size
from pooling_server.serving.server_info import describe
from pooling_server.serving.streams import answer_items
from pooling_server.sockets.listening import is_unix
from pooling_server.sockets.shared_memory import SharedMemory
from pooling_wire import GET_PLAN, GET_SERVER_INFO, METHODS, SERVICE_NAME
from pooling_wire.shared_memory import NO_REGIONS, Regions

Context = grpc.ServicerContext
Answer = Callable[[bytes, Regions], bytes]
AnswerItem = Callable[[bytes], bytes]


class PoolingServicer:
    """Handlers of `pooling.v1.PoolingService`: request bytes in, reply bytes out.

    Args:
        config: options of the server.
        executor: admits calls and grants compute slots.
        calls: computes calls.
        version: version of the software, for GetServerInfo.
        memory: regions in which clients on Unix sockets may place tensors.

    Attributes:
        on_device_lost: called with the error of a call that finds the device lost.
    """

    def __init__(
        self,
        config: ServerConfig,
        executor: Executor,
        calls: CallProcessor,
        version: str,
        memory: SharedMemory,
    ) -> None:
        self._config = config
        self._executor = executor
        self._calls = calls
        self._version = version
        self._memory = memory
        self.on_device_lost: Callable[[PoolingError], None] = lambda error: None

    def handlers(self, threads: ThreadPoolExecutor) -> grpc.GenericRpcHandler:
        """Return the handlers for `grpc.Server.add_generic_rpc_handlers`.

        The handlers have no deserializers: only a handler can answer a message that does not parse
        with INVALID_ARGUMENT. Unary requests are received as a stream of one message: otherwise,
        gRPC would block a thread until the message has arrived, before a handler could count it.

        Args:
            threads: pool in which calls are answered.
        """

        def unary(
            answer: Callable[[Iterator[bytes], Context], bytes],
        ) -> grpc.RpcMethodHandler[Any, Any]:
            return grpc.stream_unary_rpc_method_handler(_in(threads, answer))

        def stream(
            answer: Callable[[Iterator[bytes], Context], Iterator[bytes]],
        ) -> grpc.RpcMethodHandler[Any, Any]:
            return grpc.stream_stream_rpc_method_handler(_in(threads, answer))

        handlers = {
            GET_SERVER_INFO: unary(self._answer_info),
            GET_PLAN: unary(partial(self._answer, _answer_plan)),
        }
        for method in METHODS:
            answer = partial(self._calls.answer, method)
            answer_item = partial(self._calls.answer_item, method)
            handlers[method.name] = unary(partial(self._answer, answer))
            handlers[method.stream_name] = stream(partial(self._answer_stream, answer_item))
        return grpc.method_handlers_generic_handler(SERVICE_NAME, handlers)

    def _answer(self, answer: Answer, requests: Iterator[bytes], context: Context) -> bytes:
        def work() -> bytes:
            if not context.is_active():  # the client has gone while the call waited
                return b""
            return answer(request, self._memory if is_unix(context.peer()) else NO_REGIONS)

        try:
            with self._executor.call(context.add_callback):
                request = next(requests, b"")
                check_message_size(request, self._config)
                return self._executor.compute(work, context.time_remaining())
        except grpc.RpcError:  # the client has gone before its message arrived
            raise
        except Exception as error:
            self._fail(context, error_reply(error))

    def _answer_stream(
        self, answer: AnswerItem, items: Iterator[bytes], context: Context
    ) -> Iterator[bytes]:
        try:
            idle_s = self._config.stream_idle_s
            yield from answer_items(answer, items, context, self._executor, idle_s)
        except Exception as error:
            self._fail(context, error_reply(error))

    def _answer_info(self, requests: Iterator[bytes], context: Context) -> bytes:
        return pooling_wire.encode_server_info(describe(self._config, self._version))

    def _fail(self, context: Context, error: PoolingError) -> NoReturn:
        if error.facts.get("cause") == LOST_DEVICE:
            self.on_device_lost(error)
        abort(context, error)


def _answer_plan(request: bytes, regions: Regions) -> bytes:
    return pooling_wire.encode_plan_response(pooling_wire.decode_plan_request(request))


class _Behavior(partial[Any]):
    """Handler function that gRPC calls in a thread pool of our choice."""

    experimental_thread_pool: ThreadPoolExecutor


def _in(threads: ThreadPoolExecutor, answer: Callable[..., Any]) -> _Behavior:
    behavior = _Behavior(answer)
    behavior.experimental_thread_pool = threads
    return behavior
