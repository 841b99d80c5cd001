"""RPC methods of the service: decode the request, check limits, compute, encode the reply."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NoReturn, TypeVar

import grpc
import numpy as np
from numpy.typing import NDArray

import pooling_engine
import pooling_wire
from pooling_engine import (
    ForwardResult,
    IndexFormat,
    InvalidSpecError,
    PoolingError,
    UnavailableError,
)
from pooling_engine.errors import LOST_DEVICE
from pooling_engine.plans.planning import make_plan
from pooling_server.config import ServerConfig
from pooling_server.serving.arena import Arena, Loan
from pooling_server.serving.error_replies import abort, error_reply
from pooling_server.serving.executor import Executor
from pooling_server.serving.limits import check_message_size, check_plan_limits
from pooling_server.serving.server_info import describe
from pooling_server.serving.streams import answer_items
from pooling_server.sockets.listening import is_unix
from pooling_server.sockets.shared_memory import SharedMemory
from pooling_wire.shared_memory.places import (
    INDICES,
    INPUT_GRADIENT,
    NO_REGIONS,
    OUTPUT,
    Places,
    Regions,
    array_at,
)

Context = grpc.ServicerContext
Compute = Callable[[bytes], bytes]
Answer = Callable[[bytes, Regions], bytes]
Array = NDArray[Any]
Call = TypeVar("Call")
Result = TypeVar("Result")


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
        call = pooling_wire.decode_forward_request(request, regions)
        with self.arena.loan() as loan:
            result = self._forward(call, loan, regions)
            return pooling_wire.encode_forward_response(result, call.places)

    def backward(self, request: bytes, regions: Regions = NO_REGIONS) -> bytes:
        """Return the reply to a BackwardRequest, whose tensors may be in shared memory."""
        call = pooling_wire.decode_backward_request(request, regions)
        with self.arena.loan() as loan:
            gradient = self._backward(call, loan, regions)
            return pooling_wire.encode_backward_response(gradient, call.places)

    def forward_item(self, item: bytes) -> bytes:
        """Return the reply to a ForwardStreamRequest: a result or an error."""
        decode, encode = pooling_wire.decode_forward_item, pooling_wire.encode_forward_item_reply
        return self._answer_item(decode, self._forward, encode, item)

    def backward_item(self, item: bytes) -> bytes:
        """Return the reply to a BackwardStreamRequest: a result or an error."""
        decode, encode = pooling_wire.decode_backward_item, pooling_wire.encode_backward_item_reply
        return self._answer_item(decode, self._backward, encode, item)

    def plan(self, request: bytes, regions: Regions = NO_REGIONS) -> bytes:
        """Return the reply to a GetPlanRequest."""
        return pooling_wire.encode_plan_response(pooling_wire.decode_plan_request(request))

    def _forward(
        self, call: pooling_wire.ForwardCall, loan: Loan, regions: Regions = NO_REGIONS
    ) -> ForwardResult:
        """Compute a forward call into the client's locations, or into buffers of `loan`."""
        results = self._results(loan, call, regions)
        checked = pooling_engine.ForwardCall(
            call.input, call.spec, call.return_indices, call.index_format
        )
        return pooling_engine.run(checked, results, backend=self.backend)

    def _backward(
        self, call: pooling_wire.BackwardCall, loan: Loan, regions: Regions = NO_REGIONS
    ) -> Array:
        """Compute a backward call into the client's location, or into a buffer of `loan`."""
        return pooling_engine.backward(
            call.output_gradient,
            call.spec,
            input_shape=call.input_shape,
            indices=call.indices,
            input=call.input,
            index_format=call.index_format,
            backend=self.backend,
            out=self._gradient(loan, call, regions),
        )

    def _answer_item(
        self,
        decode: Callable[[bytes], tuple[int, Call | PoolingError]],
        compute: Callable[[Call, Loan], Result],
        encode: Callable[[int, Result | PoolingError], bytes],
        item: bytes,
    ) -> bytes:
        id_ = 0
        try:
            id_, call = decode(item)
            if isinstance(call, PoolingError):
                return encode(id_, error_reply(call))
            check_message_size(item, self._config)
            with self.arena.loan() as loan:
                return encode(id_, compute(call, loan))
        except UnavailableError:  # e.g. a lost device: the stream ends, another server takes over
            raise
        except Exception as error:
            return encode(id_, error_reply(error))

    def _results(
        self, loan: Loan, call: pooling_wire.ForwardCall, regions: Regions
    ) -> dict[str, Array]:
        """Return the arrays for the output and the indices."""
        plan = make_plan(call.spec, call.input.shape, call.input.dtype)
        is_window = call.index_format is IndexFormat.WINDOW
        has_indices = call.return_indices and plan.selects
        if INDICES in call.places and not (has_indices and is_window):
            raise InvalidSpecError(
                "indices_place applies only with return_indices, in the window format",
                field="indices_place",
            )
        sent = 0 if OUTPUT in call.places else plan.output_bytes
        if call.return_indices and INDICES not in call.places:
            sent += plan.index_bytes(call.index_format)
        check_plan_limits(plan, sent, "input", self._config)
        shape = plan.output_shape
        wanted = {OUTPUT: plan.output_dtype}
        if has_indices and is_window:
            wanted[INDICES] = plan.index_dtype
        return {
            name: self._lend(loan, call.places, regions, name, shape, dtype)
            for name, dtype in wanted.items()
        }

    def _gradient(
        self, loan: Loan, call: pooling_wire.BackwardCall, regions: Regions
    ) -> Array | None:
        """Return the array for the gradient; None without a shape, which the engine rejects."""
        shape = call.input_shape if call.input is None else call.input.shape
        if shape is None:
            return None
        dtype = call.output_gradient.dtype
        plan = make_plan(
            call.spec, shape, dtype, shape_field="input_shape", dtype_field="output_gradient"
        )
        sent = 0 if INPUT_GRADIENT in call.places else plan.input_bytes
        check_plan_limits(plan, sent, "input_shape", self._config)
        return self._lend(loan, call.places, regions, INPUT_GRADIENT, plan.input_shape, plan.dtype)

    def _lend(
        self, loan: Loan, places: Places, regions: Regions, name: str,
        shape: tuple[int, ...], dtype: np.dtype[Any],
    ) -> Array:  # fmt: skip
        """Return the array for a result: at the client's location, or borrowed from `loan`."""
        if name in places:
            return array_at(places[name], shape, dtype, regions, f"{name}_place")
        return loan.array(shape, dtype)

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
