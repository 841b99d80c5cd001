"""The methods of the service: decode, check, compute, encode."""

from __future__ import annotations

import logging
import uuid
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
    InternalError,
    InvalidSpecError,
    PoolingError,
    UnavailableError,
)
from pooling_engine.errors import LOST_DEVICE
from pooling_engine.plans.planning import make_plan
from pooling_server.config import ServerConfig
from pooling_server.serving.arena import Arena, Loan
from pooling_server.serving.executor import Executor
from pooling_server.serving.limits import check_message, check_plan
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

_log = logging.getLogger("pooling_server")

Context = grpc.ServicerContext
Compute = Callable[[bytes], bytes]
Answer = Callable[[bytes, Regions], bytes]
Array = NDArray[Any]
Call = TypeVar("Call")
Result = TypeVar("Result")


class PoolingServicer:
    """Answers `pooling.v1.PoolingService`: request bytes in, reply bytes out, no state between.

    Args:
        config: the limits and the backend.
        executor: decides when a call is computed.
        version: what GetServerInfo says of the software.
        memory: what callers over a Unix socket may name places in.

    Attributes:
        backend: the name of what computes the calls to come.
        lose: called with what a call says that finds the device lost.
    """

    def __init__(
        self, config: ServerConfig, executor: Executor, version: str, memory: SharedMemory
    ) -> None:
        self._config = config
        self._executor = executor
        self._version = version
        self._memory = memory
        self._arena = Arena(config.arena_bytes)
        self.backend = config.backend
        self.lose: Callable[[PoolingError], None] = lambda error: None

    def handlers(self, threads: ThreadPoolExecutor) -> grpc.GenericRpcHandler:
        """The service for `grpc.Server.add_generic_rpc_handlers`.

        Without deserialisers: a message that does not parse is the caller's mistake, and only
        a handler can say so. A single request is received as a stream of one: gRPC would let a
        thread wait for it, for as long as the caller likes, before any handler could count it.

        Args:
            threads: what calls are answered in.
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
        """The reply to a ForwardRequest, whose tensors may be in shared memory."""
        call = pooling_wire.decode_forward_request(request, regions)
        with self._arena.loan() as loan:
            result = self._forward(call, loan, regions)
            return pooling_wire.encode_forward_response(result, call.places)

    def backward(self, request: bytes, regions: Regions = NO_REGIONS) -> bytes:
        """The reply to a BackwardRequest, whose tensors may be in shared memory."""
        call = pooling_wire.decode_backward_request(request, regions)
        with self._arena.loan() as loan:
            gradient = self._backward(call, loan, regions)
            return pooling_wire.encode_backward_response(gradient, call.places)

    def forward_item(self, item: bytes) -> bytes:
        """The reply to a ForwardStreamRequest; what is wrong with it is in the reply."""
        decode, encode = pooling_wire.decode_forward_item, pooling_wire.encode_forward_item_reply
        return self._answer_item(decode, self._forward, encode, item)

    def backward_item(self, item: bytes) -> bytes:
        """The reply to a BackwardStreamRequest; what is wrong with it is in the reply."""
        decode, encode = pooling_wire.decode_backward_item, pooling_wire.encode_backward_item_reply
        return self._answer_item(decode, self._backward, encode, item)

    def plan(self, request: bytes, regions: Regions = NO_REGIONS) -> bytes:
        """The reply to a GetPlanRequest, which has no tensors."""
        return pooling_wire.encode_plan_response(pooling_wire.decode_plan_request(request))

    def _forward(
        self, call: pooling_wire.ForwardCall, loan: Loan, regions: Regions = NO_REGIONS
    ) -> ForwardResult:
        """The result of a call: where the caller wants it, or lent until `loan` ends."""
        return pooling_engine.forward(
            call.input,
            call.spec,
            return_indices=call.return_indices,
            index_format=call.index_format,
            backend=self.backend,
            out=self._results(loan, call, regions),
        )

    def _backward(
        self, call: pooling_wire.BackwardCall, loan: Loan, regions: Regions = NO_REGIONS
    ) -> Array:
        """The gradient of a call: where the caller wants it, or lent until `loan` ends."""
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
                return encode(id_, _refusal(call))
            check_message(item, self._config)
            with self._arena.loan() as loan:
                return encode(id_, compute(call, loan))
        except UnavailableError:  # the device is lost: the stream ends, others may go on with it
            raise
        except Exception as error:
            return encode(id_, _refusal(error))

    def _results(
        self, loan: Loan, call: pooling_wire.ForwardCall, regions: Regions
    ) -> Array | tuple[Array, Array]:
        """Where the output, and the indices, go."""
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
        check_plan(plan, sent, "input", self._config)
        shape = plan.output_shape
        output = self._lend(loan, call.places, regions, OUTPUT, shape, plan.output_dtype)
        if not (has_indices and is_window):
            return output
        return output, self._lend(loan, call.places, regions, INDICES, shape, plan.index_dtype)

    def _gradient(
        self, loan: Loan, call: pooling_wire.BackwardCall, regions: Regions
    ) -> Array | None:
        """Where the gradient goes; None if no shape is sent: refused later."""
        shape = call.input_shape if call.input is None else call.input.shape
        if shape is None:
            return None
        dtype = call.output_gradient.dtype
        plan = make_plan(
            call.spec, shape, dtype, shape_field="input_shape", dtype_field="output_gradient"
        )
        sent = 0 if INPUT_GRADIENT in call.places else plan.input_bytes
        check_plan(plan, sent, "input_shape", self._config)
        return self._lend(loan, call.places, regions, INPUT_GRADIENT, plan.input_shape, plan.dtype)

    def _lend(
        self, loan: Loan, places: Places, regions: Regions, name: str,
        shape: tuple[int, ...], dtype: np.dtype[Any],
    ) -> Array:  # fmt: skip
        """Memory for a result: where the caller wants it, or lent until `loan` ends."""
        if name in places:
            return array_at(places[name], shape, dtype, regions, f"{name}_place")
        return loan.array(shape, dtype)

    def _answer(self, answer: Answer, requests: Iterator[bytes], context: Context) -> bytes:
        def work() -> bytes:
            if not context.is_active():  # the caller has gone while the call waited
                return b""
            return answer(request, self._memory if is_unix(context.peer()) else NO_REGIONS)

        try:
            with self._executor.call(context.add_callback):
                request = next(requests, b"")
                check_message(request, self._config)
                return self._executor.compute(work, context.time_remaining())
        except grpc.RpcError:  # the caller has gone before the request had come
            raise
        except Exception as error:
            self._refuse(context, _refusal(error))

    def _answer_stream(
        self, answer: Compute, items: Iterator[bytes], context: Context
    ) -> Iterator[bytes]:
        try:
            idle_s = self._config.stream_idle_s
            yield from answer_items(answer, items, context, self._executor, idle_s)
        except Exception as error:
            self._refuse(context, _refusal(error))

    def _refuse(self, context: Context, error: PoolingError) -> NoReturn:
        if error.facts.get("cause") == LOST_DEVICE:
            self.lose(error)
        status = pooling_wire.encode_error(error)
        if status.details:
            context.set_trailing_metadata(((pooling_wire.DETAILS_KEY, status.details),))
        context.abort(status.code, status.message)

    def _answer_info(self, requests: Iterator[bytes], context: Context) -> bytes:
        return pooling_wire.encode_server_info(describe(self._config, self._version))


class _Behavior(partial[Any]):
    """A function that gRPC calls in threads of our choice."""

    experimental_thread_pool: ThreadPoolExecutor


def _in(threads: ThreadPoolExecutor, answer: Callable[..., Any]) -> _Behavior:
    behavior = _Behavior(answer)
    behavior.experimental_thread_pool = threads
    return behavior


def _refusal(error: Exception) -> PoolingError:
    """What the caller is told. Of a bug an id only; what happened is in the log under that id."""
    if isinstance(error, PoolingError):
        _log.info("refused: %s: %s", error.reason, error)
        return error
    if isinstance(error, MemoryError):
        _log.error("out of memory: %s", error)
        return pooling_engine.DeviceMemoryError("the server is out of memory")
    bug = uuid.uuid4().hex[:12]
    _log.exception("bug %s", bug)
    return InternalError(f"internal error {bug}; the server's log says more")
