"""The methods of the service: decode, check, compute, encode."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, NoReturn, TypeVar

import grpc
from numpy.typing import NDArray

import pooling_engine
import pooling_wire
from pooling_engine import ForwardResult, IndexFormat, InternalError, PoolingError
from pooling_engine.arena import Arena
from pooling_engine.plan import make_plan
from pooling_server.config import ServerConfig
from pooling_server.executor import Executor
from pooling_server.info import describe
from pooling_server.limits import check_message, check_plan
from pooling_server.streams import answer_items

_log = logging.getLogger("pooling_server")

Context = grpc.ServicerContext
Compute = Callable[[bytes], bytes]
Array = NDArray[Any]
Call = TypeVar("Call")
Result = TypeVar("Result")


class PoolingServicer:
    """Answers `pooling.v1.PoolingService`: request bytes in, reply bytes out, no state between.

    Args:
        config: the limits and the backend.
        executor: decides when a call is computed.
        version: what GetServerInfo says of the software.

    Attributes:
        backend: the name of what computes the calls to come.
    """

    def __init__(self, config: ServerConfig, executor: Executor, version: str) -> None:
        self._config = config
        self._executor = executor
        self._version = version
        self._arena = Arena(config.arena_bytes)
        self.backend = config.backend

    def handlers(self) -> grpc.GenericRpcHandler:
        """The service for `grpc.Server.add_generic_rpc_handlers`.

        Without deserialisers: a message that does not parse is the caller's mistake, and only
        a handler can say so.
        """
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
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

    def forward(self, request: bytes) -> bytes:
        """The reply to a ForwardRequest."""
        call = pooling_wire.decode_forward_request(request)
        with ExitStack() as blocks:
            return pooling_wire.encode_forward_response(self._forward(call, blocks))

    def backward(self, request: bytes) -> bytes:
        """The reply to a BackwardRequest."""
        call = pooling_wire.decode_backward_request(request)
        with ExitStack() as blocks:
            return pooling_wire.encode_backward_response(self._backward(call, blocks))

    def forward_item(self, item: bytes) -> bytes:
        """The reply to a ForwardStreamRequest; what is wrong with it is in the reply."""
        decode, encode = pooling_wire.decode_forward_item, pooling_wire.encode_forward_item_reply
        return self._answer_item(decode, self._forward, encode, item)

    def backward_item(self, item: bytes) -> bytes:
        """The reply to a BackwardStreamRequest; what is wrong with it is in the reply."""
        decode, encode = pooling_wire.decode_backward_item, pooling_wire.encode_backward_item_reply
        return self._answer_item(decode, self._backward, encode, item)

    def plan(self, request: bytes) -> bytes:
        """The reply to a GetPlanRequest."""
        return pooling_wire.encode_plan_response(pooling_wire.decode_plan_request(request))

    def _forward(self, call: pooling_wire.ForwardCall, blocks: ExitStack) -> ForwardResult:
        """The result of a call, in memory that is lent until `blocks` ends."""
        return pooling_engine.forward(
            call.input,
            call.spec,
            return_indices=call.return_indices,
            index_format=call.index_format,
            backend=self.backend,
            out=self._borrow_results(blocks, call),
        )

    def _backward(self, call: pooling_wire.BackwardCall, blocks: ExitStack) -> Array:
        """The gradient of a call, in memory that is lent until `blocks` ends."""
        return pooling_engine.backward(
            call.output_gradient,
            call.spec,
            input_shape=call.input_shape,
            indices=call.indices,
            input=call.input,
            index_format=call.index_format,
            backend=self.backend,
            out=self._borrow_gradient(blocks, call),
        )

    def _answer_item(
        self,
        decode: Callable[[bytes], tuple[int, Call | PoolingError]],
        compute: Callable[[Call, ExitStack], Result],
        encode: Callable[[int, Result | PoolingError], bytes],
        item: bytes,
    ) -> bytes:
        id_ = 0
        try:
            id_, call = decode(item)
            if isinstance(call, PoolingError):
                return encode(id_, _refusal(call))
            check_message(item, self._config)
            with ExitStack() as blocks:
                return encode(id_, compute(call, blocks))
        except Exception as error:
            return encode(id_, _refusal(error))

    def _borrow_results(
        self, blocks: ExitStack, call: pooling_wire.ForwardCall
    ) -> Array | tuple[Array, Array]:
        """Memory for the output, and the indices, until `blocks` ends: they are copied by then."""
        plan = make_plan(call.spec, call.input.shape, call.input.dtype)
        index_bytes = plan.index_bytes(call.index_format) if call.return_indices else 0
        check_plan(plan, plan.output_bytes + index_bytes, "input", self._config)
        output = blocks.enter_context(self._arena.borrow(plan.output_shape, plan.output_dtype))
        if not (call.return_indices and plan.selects and call.index_format is IndexFormat.WINDOW):
            return output
        indices = self._arena.borrow(plan.output_shape, plan.index_dtype)
        return output, blocks.enter_context(indices)

    def _borrow_gradient(self, blocks: ExitStack, call: pooling_wire.BackwardCall) -> Array | None:
        """Memory for the gradient until `blocks` ends; None if no shape is sent: refused later."""
        shape = call.input_shape if call.input is None else call.input.shape
        if shape is None:
            return None
        dtype = call.output_gradient.dtype
        plan = make_plan(
            call.spec, shape, dtype, shape_field="input_shape", dtype_field="output_gradient"
        )
        check_plan(plan, plan.input_bytes, "input_shape", self._config)
        return blocks.enter_context(self._arena.borrow(plan.input_shape, plan.dtype))

    def _answer(self, compute: Compute, request: bytes, context: Context) -> bytes:
        def work() -> bytes:
            if not context.is_active():  # the caller has gone while the call waited
                return b""
            return compute(request)

        try:
            check_message(request, self._config)
            return self._executor.run(work, context.time_remaining())
        except Exception as error:
            _refuse(context, _refusal(error))

    def _answer_stream(
        self, answer: Compute, items: Iterator[bytes], context: Context
    ) -> Iterator[bytes]:
        try:
            yield from answer_items(answer, items, context, self._executor)
        except Exception as error:
            _refuse(context, _refusal(error))

    def _answer_info(self, request: bytes, context: Context) -> bytes:
        return pooling_wire.encode_server_info(describe(self._config, self._version))


def _refuse(context: Context, error: PoolingError) -> NoReturn:
    status = pooling_wire.encode_error(error)
    context.set_trailing_metadata(((pooling_wire.DETAILS_KEY, status.details),))
    context.abort(status.code, status.message)


def _refusal(error: Exception) -> PoolingError:
    """What the caller is told. Of a bug an id only; what happened is in the log under that id."""
    if isinstance(error, PoolingError):
        _log.info("refused: %s: %s", error.reason, error)
        return error
    if isinstance(error, MemoryError):
        _log.exception("out of memory")
        return pooling_engine.DeviceMemoryError("the server is out of memory")
    bug = uuid.uuid4().hex[:12]
    _log.exception("bug %s", bug)
    return InternalError(f"internal error {bug}; the server's log says more")
