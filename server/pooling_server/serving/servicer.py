"""gRPC handlers of the service: the methods, and errors of calls and streams."""

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
from pooling_server.serving.call_processor import CallProcessor, Item, PreparedCall
from pooling_server.serving.error_replies import abort, error_reply, set_status
from pooling_server.serving.executor import Executor
from pooling_server.serving.idle import IdleWatch
from pooling_server.serving.polled_streams import PolledStream, StreamServices
from pooling_server.serving.polling_thread import in_pool, polled
from pooling_server.serving.server_info import describe
from pooling_server.serving.streams import answer_items
from pooling_server.serving.unary_calls import Context, UnaryCalls
from pooling_server.sockets.shared_memory import SharedMemory
from pooling_wire import GET_PLAN, GET_SERVER_INFO, METHODS, SERVICE_NAME
from pooling_wire.shared_memory import NO_REGIONS, Regions

PrepareItem = Callable[[Item], PreparedCall]


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
        self._unary = UnaryCalls(config, executor, calls, memory, self._report, self._fail)
        self._watch = IdleWatch(config.stream_idle_s)
        self.on_device_lost: Callable[[PoolingError], None] = lambda error: None

    def handlers(self, threads: ThreadPoolExecutor, is_inline: bool) -> grpc.GenericRpcHandler:
        """Return the handlers for `grpc.Server.add_generic_rpc_handlers`.

        The handlers have no deserializers: only a handler can answer a message that does not parse
        with INVALID_ARGUMENT. Unary requests are received as a stream of one message: otherwise,
        gRPC would block a thread until the message has arrived, before a handler could count it.

        Args:
            threads: pool in which calls are answered.
            is_inline: answer small calls and stream items in gRPC's polling thread.
        """
        unary = partial(self._unary.handler, threads=threads, is_inline=is_inline)
        info = in_pool(threads, self._answer_info)
        handlers = {
            GET_SERVER_INFO: grpc.stream_unary_rpc_method_handler(info),
            GET_PLAN: unary(_prepare_plan),
        }
        for method in METHODS:
            prepare_item = partial(self._calls.prepare_item, method)
            items = self._stream_handler(prepare_item, threads, is_inline)
            handlers[method.name] = unary(partial(self._calls.prepare, method))
            handlers[method.stream_name] = grpc.stream_stream_rpc_method_handler(items)
        return grpc.method_handlers_generic_handler(SERVICE_NAME, handlers)

    def stop(self) -> None:
        """End the thread that watches idle streams."""
        self._watch.stop()

    def _stream_handler(
        self, prepare: PrepareItem, threads: ThreadPoolExecutor, is_inline: bool
    ) -> Callable[..., Any]:
        if not is_inline:
            return in_pool(threads, partial(self._answer_stream, prepare))
        services = StreamServices(
            self._executor, threads, self._watch, self._calls.is_small, self._report
        )
        return polled(lambda call: PolledStream(services, prepare, call).start())

    def _answer_stream(
        self, prepare: PrepareItem, items: Iterator[bytes], context: Context
    ) -> Iterator[bytes]:
        def answer(item: Item) -> bytes:
            return prepare(item).answer(NO_REGIONS)

        try:
            yield from answer_items(answer, items, context, self._executor, self._watch)
        except Exception as error:
            self._fail(context, error_reply(error))

    def _answer_info(self, requests: Iterator[bytes], context: Context) -> bytes:
        return pooling_wire.encode_server_info(describe(self._config, self._version))

    def _report(self, context: Context, error: PoolingError) -> None:
        self._check_device(error)
        set_status(context, error)

    def _fail(self, context: Context, error: PoolingError) -> NoReturn:
        self._check_device(error)
        abort(context, error)

    def _check_device(self, error: PoolingError) -> None:
        if error.facts.get("cause") == LOST_DEVICE:
            self.on_device_lost(error)


def _prepare_plan(request: bytes, regions: Regions) -> PreparedCall:
    plan = pooling_wire.decode_plan_request(request)
    return PreparedCall(0, lambda _: pooling_wire.encode_plan_response(plan))
