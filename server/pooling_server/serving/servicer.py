"""RPC methods of the service: decode the request, check limits, compute, encode the reply."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NoReturn

import grpc
from numpy.typing import NDArray

import pooling_engine
import pooling_wire
from pooling_engine import (
    BackwardCall,
    ForwardCall,
    ForwardResult,
    PoolingError,
    UnavailableError,
)
from pooling_engine.errors import LOST_DEVICE
from pooling_server.config import ServerConfig
from pooling_server.serving.arena import Arena, Loan
from pooling_server.serving.error_replies import abort, error_reply
from pooling_server.serving.executor import Executor
from pooling_server.serving.limits import check_message_size, check_plan_limits
from pooling_server.serving.server_info import describe
from pooling_server.serving.streams import answer_items
from pooling_server.sockets.listening import is_unix
from pooling_server.sockets.shared_memory import SharedMemory
from pooling_wire import BACKWARD, FORWARD, Method
from pooling_wire.shared_memory import NO_PLACES, NO_REGIONS, Places, Regions, array_at

Context = grpc.ServicerContext
Compute = Callable[[bytes], bytes]
Answer = Callable[[bytes, Regions], bytes]
Array = NDArray[Any]


class PoolingServicer:
    """Stateless implementation of `pooling.v1.PoolingService`: request bytes in, reply bytes out.

    Args:
        config: limits and backend.
        executor: admits calls and grants compute slots.
        version: version of the software, for GetServerInfo.
        memory: regions in which clients on Unix sockets may place tensors.

    Attributes:
        arena: reusable buffers for results.
        backend: name of the backend for the next calls.
        on_device_lost: called with the error of a call that finds the device lost.
    """

    def __init__(
        self, config: ServerConfig, executor: Executor, version: str, memory: SharedMemory
    ) -> None:
        self._config = config
        self._executor = executor
        self._version = version
        self._memory = memory
        self.arena = Arena(config.arena_bytes)
        self.backend = config.backend
        self.on_device_lost: Callable[[PoolingError], None] = lambda error: None

    def handlers(self, threads: ThreadPoolExecutor) -> grpc.GenericRpcHandler:
        """Return the handlers for `grpc.Server.add_generic_rpc_handlers`.

        The handlers have no deserializers: only a handler can answer a message that does not parse
        with INVALID_ARGUMENT. Unary requests are received as a stream of one message: otherwise,
        gRPC would block a thread until the message has arrived, before a handler could count it.

        Args:
            threads: pool in which calls are answered.
        """

        def unary(answer: Callable[..., bytes]) -> grpc.RpcMethodHandler[Any, Any]:
            return grpc.stream_unary_rpc_method_handler(_in(threads, answer))

        def stream(answer: Callable[..., Iterator[bytes]]) -> grpc.RpcMethodHandler[Any, Any]:
            return grpc.stream_stream_rpc_method_handler(_in(threads, answer))

        return grpc.method_handlers_generic_handler(
            pooling_wire.SERVICE_NAME,
            {
                "Forward": unary(partial(self._answer, self.forward)),
                "Backward": unary(partial(self._answer, self.backward)),
                "ForwardStream": stream(partial(self._answer_stream, self.forward_item)),
                "BackwardStream": stream(partial(self._answer_stream, self.backward_item)),
                "GetServerInfo": unary(self._answer_info),
                "GetPlan": unary(partial(self._answer, self.plan)),
            },
        )

    def forward(self, request: bytes, regions: Regions = NO_REGIONS) -> bytes:
        """Return the reply to a ForwardRequest, whose tensors may be in shared memory."""
        return self._reply(FORWARD, request, regions)

    def backward(self, request: bytes, regions: Regions = NO_REGIONS) -> bytes:
        """Return the reply to a BackwardRequest, whose tensors may be in shared memory."""
        return self._reply(BACKWARD, request, regions)

    def forward_item(self, item: bytes) -> bytes:
        """Return the reply to a ForwardStreamRequest: a result or an error."""
        return self._answer_item(FORWARD, item)

    def backward_item(self, item: bytes) -> bytes:
        """Return the reply to a BackwardStreamRequest: a result or an error."""
        return self._answer_item(BACKWARD, item)

    def plan(self, request: bytes, regions: Regions = NO_REGIONS) -> bytes:
        """Return the reply to a GetPlanRequest."""
        return pooling_wire.encode_plan_response(pooling_wire.decode_plan_request(request))

    def _reply(self, method: Method[Any, Any], request: bytes, regions: Regions) -> bytes:
        call, places = method.decode_request(request, regions)
        with self.arena.loan() as loan:
            result = self._run(call, loan, places, regions)
            return method.encode_response(result, places)

    def _answer_item(self, method: Method[Any, Any], item: bytes) -> bytes:
        id_ = 0
        try:
            id_, call = method.decode_item(item)
            if isinstance(call, PoolingError):
                return method.encode_reply(id_, error_reply(call))
            check_message_size(item, self._config)
            with self.arena.loan() as loan:
                return method.encode_reply(id_, self._run(call, loan))
        except UnavailableError:  # e.g. a lost device: the stream ends, another server takes over
            raise
        except Exception as error:
            return method.encode_reply(id_, error_reply(error))

    def _run(
        self,
        call: ForwardCall | BackwardCall,
        loan: Loan,
        places: Places = NO_PLACES,
        regions: Regions = NO_REGIONS,
    ) -> ForwardResult | Array:
        """Compute a call into the client's locations, or into buffers of `loan`."""
        specs = call.result_specs
        sent = sum(spec.nbytes for name, spec in specs.items() if name not in places)
        field = "input" if isinstance(call, ForwardCall) else "input_shape"
        check_plan_limits(call.plan, sent, field, self._config)
        results = {
            name: array_at(places[name], *spec, regions, f"{name}_place")
            if name in places
            else loan.array(*spec)
            for name, spec in specs.items()
        }
        return pooling_engine.run(call, results, backend=self.backend)

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
        self, answer: Compute, items: Iterator[bytes], context: Context
    ) -> Iterator[bytes]:
        try:
            idle_s = self._config.stream_idle_s
            yield from answer_items(answer, items, context, self._executor, idle_s)
        except Exception as error:
            self._fail(context, error_reply(error))

    def _fail(self, context: Context, error: PoolingError) -> NoReturn:
        if error.facts.get("cause") == LOST_DEVICE:
            self.on_device_lost(error)
        abort(context, error)

    def _answer_info(self, requests: Iterator[bytes], context: Context) -> bytes:
        return pooling_wire.encode_server_info(describe(self._config, self._version))


class _Behavior(partial[Any]):
    """A function that gRPC calls in a thread pool of our choice."""

    experimental_thread_pool: ThreadPoolExecutor


def _in(threads: ThreadPoolExecutor, answer: Callable[..., Any]) -> _Behavior:
    behavior = _Behavior(answer)
    behavior.experimental_thread_pool = threads
    return behavior
