"""The methods of the service: decode, check, compute, encode."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import NoReturn

import grpc

import pooling_engine
import pooling_wire
from pooling_engine import InternalError, PoolingError, UnsupportedError
from pooling_engine.backends import BACKENDS, select_backend
from pooling_engine.plan import make_plan
from pooling_server.config import ServerConfig
from pooling_server.executor import Executor
from pooling_server.limits import check_message, check_plan

_log = logging.getLogger("pooling_server")

Context = grpc.ServicerContext
Compute = Callable[[bytes], bytes]


class PoolingServicer:
    """Answers `pooling.v1.PoolingService`: request bytes in, reply bytes out, no state between.

    Args:
        config: the limits and the backend.
        executor: decides when a call is computed.
        version: what GetServerInfo says of the software.
    """

    def __init__(self, config: ServerConfig, executor: Executor, version: str) -> None:
        self._config = config
        self._executor = executor
        self._version = version

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
                "ForwardStream": stream(self._refuse_stream),
                "BackwardStream": stream(self._refuse_stream),
                "GetServerInfo": unary(self._answer_info),
                "GetPlan": unary(partial(self._answer, self.plan)),
            },
        )

    def forward(self, request: bytes) -> bytes:
        """The reply to a ForwardRequest."""
        call = pooling_wire.decode_forward_request(request)
        plan = make_plan(call.spec, call.input.shape, call.input.dtype)
        index_bytes = plan.index_bytes(call.index_format) if call.return_indices else 0
        check_plan(plan, plan.output_bytes + index_bytes, "input", self._config)
        result = pooling_engine.forward(
            call.input,
            call.spec,
            return_indices=call.return_indices,
            index_format=call.index_format,
            backend=self._config.backend,
        )
        return pooling_wire.encode_forward_response(result)

    def backward(self, request: bytes) -> bytes:
        """The reply to a BackwardRequest."""
        call = pooling_wire.decode_backward_request(request)
        shape = call.input_shape if call.input is None else call.input.shape
        if shape is not None:
            plan = make_plan(
                call.spec, shape, call.output_gradient.dtype, shape_field="input_shape"
            )
            check_plan(plan, plan.input_bytes, "input_shape", self._config)
        gradient = pooling_engine.backward(
            call.output_gradient,
            call.spec,
            input_shape=call.input_shape,
            indices=call.indices,
            input=call.input,
            index_format=call.index_format,
            backend=self._config.backend,
        )
        return pooling_wire.encode_backward_response(gradient)

    def plan(self, request: bytes) -> bytes:
        """The reply to a GetPlanRequest."""
        return pooling_wire.encode_plan_response(pooling_wire.decode_plan_request(request))

    def info(self) -> pooling_wire.ServerInfo:
        """What GetServerInfo answers."""
        default = select_backend(self._config.backend)
        others = [select_backend(name) for name in BACKENDS if name != default.name]
        backends = tuple(
            pooling_wire.BackendInfo(
                backend.name,
                backend.devices(),
                backend.modes,
                backend.dtypes,
                backend.index_formats,
            )
            for backend in (default, *others)
        )
        names = pooling_wire.Limits.__dataclass_fields__
        limits = pooling_wire.Limits(**{name: getattr(self._config, name) for name in names})
        return pooling_wire.ServerInfo(self._version, backends, limits)

    def _answer(self, compute: Compute, request: bytes, context: Context) -> bytes:
        def work() -> bytes:
            if not context.is_active():  # the caller has gone while the call waited
                return b""
            return compute(request)

        try:
            check_message(request, self._config)
            return self._executor.run(work, context.time_remaining())
        except PoolingError as error:
            _refuse(context, error)
        except MemoryError:
            _log.exception("out of memory")
            _refuse(context, pooling_engine.DeviceMemoryError("the server is out of memory"))
        except Exception:
            _refuse_bug(context)

    def _answer_info(self, request: bytes, context: Context) -> bytes:
        return pooling_wire.encode_server_info(self.info())

    def _refuse_stream(self, requests: Iterator[bytes], context: Context) -> NoReturn:
        _refuse(context, UnsupportedError("streams are not supported yet; use the unary methods"))


def _refuse(context: Context, error: PoolingError) -> NoReturn:
    _log.info("refused: %s: %s", error.reason, error)
    status = pooling_wire.encode_error(error)
    context.set_trailing_metadata(((pooling_wire.DETAILS_KEY, status.details),))
    context.abort(status.code, status.message)


def _refuse_bug(context: Context) -> NoReturn:
    """Answers with an id only; what happened is in the log under that id."""
    bug = uuid.uuid4().hex[:12]
    _log.exception("bug %s", bug)
    _refuse(context, InternalError(f"internal error {bug}; the server's log says more"))
