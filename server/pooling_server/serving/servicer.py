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
from pooling_server.oip.messages import SERVICE_NAME as INFERENCE_SERVICE
from pooling_server.oip.service import STREAM_INFER, InferenceService
from pooling_server.serving.call_processor import CallProcessor, Item, PreparedCall
from pooling_server.serving.error_replies import abort, error_reply, set_status
from pooling_server.serving.executor import Executor
from pooling_server.serving.idle import IdleWatch
from pooling_server.serving.polled_streams import PolledStream, StreamServices
from pooling_server.serving.polling_thread import PolledCall, in_pool, polled
from pooling_server.serving.rpcs import Rpc, Rpcs, Trailers, Work
from pooling_server.serving.server_info import describe
from pooling_server.serving.streams import answer_items
from pooling_server.serving.unary_calls import Context, Prepare, UnaryCalls
from pooling_server.sockets.shared_memory import SharedMemory
from pooling_wire import GET_PLAN, GET_SERVER_INFO, METHODS, SERVICE_NAME
from pooling_wire.shared_memory import NO_REGIONS, Regions

PrepareItem = Callable[[Work, Item], PreparedCall]


class PoolingServicer:
    """Handlers of `pooling.v1.PoolingService`: request bytes in, reply bytes out.

    Args:
        config: options of the server.
        executor: admits calls and grants compute slots.
        calls: computes calls.
        version: version of the software, for GetServerInfo.
        memory: regions in which clients on Unix sockets may place tensors.
        rpcs: identifies, authorizes and counts RPCs.

    Attributes:
        on_device_lost: called with the error of a call that finds the device lost.
        prepares: decoders of the unary methods, by name; every protocol uses them.
    """

    def __init__(
        self,
        config: ServerConfig,
        executor: Executor,
        calls: CallProcessor,
        version: str,
        memory: SharedMemory,
        rpcs: Rpcs,
    ) -> None:
        self._config = config
        self._executor = executor
        self._calls = calls
        self._version = version
        self._rpcs = rpcs
        self._watch = IdleWatch(config.stream_idle_s)
        self._unary = UnaryCalls(
            config, executor, calls, memory, self._watch, rpcs, self._report, self._fail
        )
        self.on_device_lost: Callable[[PoolingError], None] = lambda error: None
        self.prepares: dict[str, Prepare] = {
            GET_SERVER_INFO: self._prepare_info,
            GET_PLAN: _prepare_plan,
            **{method.name: partial(calls.prepare, method) for method in METHODS},
        }

    def add_to(self, server: grpc.Server, threads: ThreadPoolExecutor, is_inline: bool) -> None:
        """Register the handlers with a server.

        The handlers have no deserializers: only a handler can answer a message that does not parse
        with INVALID_ARGUMENT. Unary requests are received as a stream of one message: otherwise,
        gRPC would block a thread until the message has arrived, before a handler could count it.

        Args:
            server: the server; not started yet.
            threads: pool in which calls are answered.
            is_inline: answer small calls and stream items in gRPC's polling thread.
        """
        unary = partial(self._unary.handler, threads=threads, is_inline=is_inline)
        info = in_pool(threads, partial(self._answer_empty, GET_SERVER_INFO, self._encode_info))
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            GET_SERVER_INFO: grpc.stream_unary_rpc_method_handler(info),
            GET_PLAN: unary(GET_PLAN, self.prepares[GET_PLAN]),
        }
        for method in METHODS:
            prepare_item = partial(self._calls.prepare_item, method)
            items = self._stream_handler(method.stream_name, prepare_item, threads, is_inline)
            handlers[method.name] = unary(method.name, self.prepares[method.name])
            handlers[method.stream_name] = grpc.stream_stream_rpc_method_handler(items)
        generic = grpc.method_handlers_generic_handler(SERVICE_NAME, handlers)
        server.add_generic_rpc_handlers((generic,))
        server.add_registered_method_handlers(SERVICE_NAME, handlers)  # found without a search

    def add_inference(
        self,
        service: InferenceService,
        server: grpc.Server,
        threads: ThreadPoolExecutor,
        is_inline: bool,
    ) -> None:
        """Register the Open Inference Protocol, whose requests become the same calls.

        Args:
            service: its methods.
            server: the server; not started yet.
            threads: pool in which calls are answered.
            is_inline: answer small calls and stream items in gRPC's polling thread.
        """
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            name: self._unary.handler(name, prepare, threads, is_inline)
            for name, prepare in service.prepares.items()
        }
        for name, encode in service.empty.items():
            answer = in_pool(threads, partial(self._answer_empty, name, encode))
            handlers[name] = grpc.stream_unary_rpc_method_handler(answer)
        items = self._stream_handler(STREAM_INFER, service.prepare_item, threads, is_inline)
        handlers[STREAM_INFER] = grpc.stream_stream_rpc_method_handler(items)
        generic = grpc.method_handlers_generic_handler(INFERENCE_SERVICE, handlers)
        server.add_generic_rpc_handlers((generic,))
        server.add_registered_method_handlers(INFERENCE_SERVICE, handlers)

    def stop(self) -> None:
        """End the thread that watches idle streams."""
        self._watch.stop()

    def _stream_handler(
        self, name: str, prepare: PrepareItem, threads: ThreadPoolExecutor, is_inline: bool
    ) -> Callable[..., Any]:
        if not is_inline:
            return in_pool(threads, partial(self._answer_stream, name, prepare))
        services = StreamServices(
            self._executor, threads, self._watch, self._calls.is_small, self._report
        )

        def start(call: PolledCall) -> None:
            PolledStream(services, prepare, call, Rpc(self._rpcs, name, call.context)).start()

        return polled(start)

    def _answer_stream(
        self, name: str, prepare: PrepareItem, items: Iterator[bytes], context: Context
    ) -> Iterator[bytes]:
        rpc = Rpc(self._rpcs, name, context)

        def answer(item: Item) -> bytes:
            return prepare(rpc.receive(len(item.message)), item).answer(NO_REGIONS)

        try:
            rpc.authorize()
            yield from answer_items(answer, items, context, self._executor, self._watch)
        except Exception as error:
            self._fail(context, error, rpc)
        context.set_trailing_metadata(rpc.succeed())

    def _answer_empty(
        self, name: str, encode: Callable[[], bytes], requests: Iterator[bytes], context: Context
    ) -> bytes:
        """Answer a request without content, even if the server is saturated."""
        rpc = Rpc(self._rpcs, name, context)
        try:
            rpc.authorize()
            work = rpc.receive(0)
            reply = encode()
        except Exception as error:
            self._fail(context, error, rpc)
        work.succeed(len(reply))
        context.set_trailing_metadata(rpc.succeed())
        return reply

    def _encode_info(self) -> bytes:
        return pooling_wire.encode_server_info(describe(self._config, self._version))

    def _prepare_info(self, work: Work, request: bytes, regions: Regions) -> PreparedCall:
        return PreparedCall(0, lambda _: self._encode_info())

    def _report(
        self, context: Context, exception: Exception, rpc: Rpc, work: Work | None = None
    ) -> None:
        """Give an RPC the status of an error."""
        set_status(context, *self.failed(exception, rpc, work))

    def _fail(
        self, context: Context, exception: Exception, rpc: Rpc, work: Work | None = None
    ) -> NoReturn:
        """End an RPC with an error, in the thread of its handler."""
        abort(context, *self.failed(exception, rpc, work))

    def failed(
        self, exception: Exception, rpc: Rpc, work: Work | None
    ) -> tuple[PoolingError, Trailers]:
        """Count an RPC that failed; return its error and its trailers."""
        error = error_reply(exception, rpc.request_id)
        if error.facts.get("cause") == LOST_DEVICE:
            self.on_device_lost(error)
        return error, rpc.fail(error, work)


def _prepare_plan(work: Work, request: bytes, regions: Regions) -> PreparedCall:
    plan = pooling_wire.decode_plan_request(request)
    work.mode = plan.mode
    return PreparedCall(0, lambda _: pooling_wire.encode_plan_response(plan))
