"""gRPC handlers of the service: the methods, and errors of calls and streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, NoReturn

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
from pooling_server.serving.polled_unary_calls import start_of
from pooling_server.serving.polling_thread import PolledCall, PolledMethods, Start, in_pool
from pooling_server.serving.rpcs import Rpc, Rpcs, Trailers, Work
from pooling_server.serving.server_info import describe
from pooling_server.serving.streams import answer_items
from pooling_server.serving.unary_calls import Context, Prepare, UnaryCalls
from pooling_server.sockets.shared_memory import SharedMemory
from pooling_wire import GET_PLAN, GET_SERVER_INFO, METHODS, SERVICE_NAME
from pooling_wire.shared_memory import Regions

PrepareItem = Callable[[Work, Item], PreparedCall]


class _Methods(NamedTuple):
    """Methods of a service, by name.

    Attributes:
        unary: decoders of the requests of unary calls.
        streams: decoders of the items of streams.
        empty: encoders of replies to requests without content.
    """

    unary: Mapping[str, Prepare]
    streams: Mapping[str, PrepareItem]
    empty: Mapping[str, Callable[[], bytes]]


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

    def add_to(
        self, server: grpc.Server, threads: ThreadPoolExecutor, polled: PolledMethods | None
    ) -> None:
        """Register the methods with a server.

        Args:
            server: the server; not started yet.
            threads: pool in which calls are answered.
            polled: answers small calls and stream items in gRPC's polling thread; None if threads
                answer all of them.
        """
        names = (GET_PLAN, *(method.name for method in METHODS))
        unary = {name: self.prepares[name] for name in names}
        streams = {
            method.stream_name: partial(self._calls.prepare_item, method) for method in METHODS
        }
        empty = {GET_SERVER_INFO: self._encode_info}
        self._add(SERVICE_NAME, server, threads, polled, _Methods(unary, streams, empty))

    def add_inference(
        self,
        service: InferenceService,
        server: grpc.Server,
        threads: ThreadPoolExecutor,
        polled: PolledMethods | None,
    ) -> None:
        """Register the Open Inference Protocol, whose requests become the same calls.

        Args:
            service: its methods.
            server, threads, polled: as for `add_to`.
        """
        streams = {STREAM_INFER: service.prepare_item}
        methods = _Methods(service.prepares, streams, service.empty)
        self._add(INFERENCE_SERVICE, server, threads, polled, methods)

    def _add(
        self,
        service: str,
        server: grpc.Server,
        threads: ThreadPoolExecutor,
        polled: PolledMethods | None,
        methods: _Methods,
    ) -> None:
        """Register methods, without deserializers.

        Only a handler can answer a message that does not parse with INVALID_ARGUMENT. Handlers of
        unary calls receive a stream of one message: otherwise, gRPC would block a thread until the
        message has arrived, before a handler could count it.
        """
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for name, encode in methods.empty.items():
            answer = in_pool(threads, partial(self._answer_empty, name, encode))
            handlers[name] = grpc.stream_unary_rpc_method_handler(answer)
        for name, prepare in methods.unary.items():
            if polled is not None:
                polled.add(service, name, start_of(self._unary, name, prepare, threads))
            else:
                handlers[name] = self._unary.handler(name, prepare, threads)
        for name, prepare_item in methods.streams.items():
            if polled is not None:
                polled.add(service, name, self._stream_start(name, prepare_item, threads))
            else:
                items = in_pool(threads, partial(self._answer_stream, name, prepare_item))
                handlers[name] = grpc.stream_stream_rpc_method_handler(items)
        generic = grpc.method_handlers_generic_handler(service, handlers)
        server.add_generic_rpc_handlers((generic,))
        server.add_registered_method_handlers(service, handlers)  # found without a search

    def start(self) -> None:
        """Start the thread that watches idle streams."""
        self._watch.start()

    def stop(self) -> None:
        """End the thread that watches idle streams."""
        self._watch.stop()

    def _stream_start(self, name: str, prepare: PrepareItem, threads: ThreadPoolExecutor) -> Start:
        """Return the function that starts streams of a method in the polling thread."""
        services = StreamServices(
            self._executor,
            threads,
            self._watch,
            self._calls.is_small,
            self._report,
            self._unary.regions,
        )

        def start(call: PolledCall) -> None:
            PolledStream(services, prepare, call, Rpc(self._rpcs, name, call.context)).start()

        return start

    def _answer_stream(
        self, name: str, prepare: PrepareItem, items: Iterator[bytes], context: Context
    ) -> Iterator[bytes]:
        rpc = Rpc(self._rpcs, name, context)

        def answer(item: Item) -> bytes:
            placed = item._replace(regions=self._unary.regions(rpc))
            return prepare(rpc.receive(len(item.message)), placed).answer(placed.regions)

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
