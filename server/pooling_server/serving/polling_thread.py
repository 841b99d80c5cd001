"""Calls in gRPC's polling thread. All use of private parts of gRPC is in this module.

gRPC's server hands every call to a pool of threads, and each message of the call to that thread.
These hand-overs take longer than a small pooling call. `PollingThreadExecutor` takes the place of
the pool (`experimental_thread_pool`): it starts the operations of a call with callbacks, which run
in the polling thread.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import sys
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc

_server: Any = None
cygrpc: Any = None
_missing: str | None = None
try:
    _server = importlib.import_module("grpc._server")
    cygrpc = importlib.import_module("grpc._cython.cygrpc")
except ImportError as error:  # another layout of grpcio
    _missing = str(error)

_log = logging.getLogger("pooling_server")
_NO_FLAGS = 0
_SELF_CALL_S = 10
# Parameters of the private functions of `grpc._server` that this module relies on.
_SIGNATURES = {
    "_Context": ("rpc_event", "state", "request_deserializer"),
    "_is_rpc_state_active": ("state",),
    "_possibly_finish_call": ("state", "token"),
    "_status": ("rpc_event", "state", "serialized_response"),
}
_STATE_ATTRIBUTES = (
    "callbacks",
    "condition",
    "due",
    "initial_metadata_allowed",
    "statused",
)
_NAMES = {
    "grpc._server": (
        "_RECEIVE_MESSAGE_TOKEN",
        "_SEND_MESSAGE_TOKEN",
        "_SEND_STATUS_FROM_SERVER_TOKEN",
    ),
    "grpc._cython.cygrpc": (
        "ReceiveMessageOperation",
        "SendInitialMetadataOperation",
        "SendMessageOperation",
        "SendStatusFromServerOperation",
        "StatusCode",
    ),
}
_DONE: Future[None] = Future()
_DONE.set_result(None)


class PolledCall:
    """Operations of one call, whose callbacks run in the polling thread.

    A callback must not block. Operations are started with `lock` held, while the call is active.

    Attributes:
        lock: lock of the call; re-entrant.
        context: context of the call, as a handler receives it.
    """

    __slots__ = ("_event", "_state", "context", "lock")

    def __init__(self, event: Any, state: Any) -> None:
        self._event, self._state = event, state
        self.lock: threading.Condition = state.condition
        self.context: grpc.ServicerContext = _server._Context(event, state, None)

    @property
    def is_active(self) -> bool:
        """True until the client has disconnected or `end` was called."""
        return bool(_server._is_rpc_state_active(self._state))

    @property
    def is_receiving(self) -> bool:
        """True from `receive` until the message has arrived; read it with `lock` held."""
        return _server._RECEIVE_MESSAGE_TOKEN in self._state.due

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call a function when the status was sent, or the client has disconnected."""
        self._state.callbacks.append(callback)

    def receive(self, on_message: Callable[[bytes | None], None]) -> None:
        """Receive a message; the callback gets None if the client sends no more."""
        token = _server._RECEIVE_MESSAGE_TOKEN

        def received(event: Any) -> Any:
            return self._completed(token, on_message, event.batch_operations[0].message())

        self._state.due.add(token)
        self._event.call.start_server_batch((cygrpc.ReceiveMessageOperation(_NO_FLAGS),), received)

    def send(self, message: bytes, on_sent: Callable[[], None]) -> None:
        """Send a message; one at a time."""
        token, state = _server._SEND_MESSAGE_TOKEN, self._state
        operations: tuple[Any, ...] = (cygrpc.SendMessageOperation(message, _NO_FLAGS),)
        if state.initial_metadata_allowed:
            state.initial_metadata_allowed = False
            operations = (cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS), *operations)
        state.due.add(token)
        self._event.call.start_server_batch(operations, lambda _: self._completed(token, on_sent))

    def reply(self, message: bytes, trailers: tuple[tuple[str, str | bytes], ...]) -> None:
        """Send the only message and the trailers of a unary call, and end it with the status OK."""
        token, state = _server._SEND_STATUS_FROM_SERVER_TOKEN, self._state
        operations = (
            cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS),
            cygrpc.SendMessageOperation(message, _NO_FLAGS),
            cygrpc.SendStatusFromServerOperation(trailers, cygrpc.StatusCode.ok, b"", _NO_FLAGS),
        )
        with self.lock:
            if self.is_active:
                state.statused = True
                state.due.add(token)
                self._event.call.start_server_batch(operations, lambda _: self._finished(token))

    def end(self) -> None:
        """End the call with the status of the context."""
        _server._status(self._event, self._state, None)

    def _finished(self, token: str) -> Any:
        """Remove an operation from those that are due; return what gRPC has to do next."""
        with self.lock:
            return _server._possibly_finish_call(self._state, token)

    def _completed(self, token: str, callback: Callable[..., None], *arguments: Any) -> Any:
        after = self._finished(token)
        try:
            callback(*arguments)
        except Exception:  # it would end the polling thread
            _log.exception("a bug ends a call")
            self.context.cancel()
        return after


class PollingThreadExecutor(ThreadPoolExecutor):
    """Stands in for the thread pool of handlers.

    Args:
        start: called in the polling thread when a call starts, before its message has arrived, with
            the lock of the call held.
    """

    def __init__(self, start: Callable[[PolledCall], None]) -> None:
        super().__init__(1)
        self._start_call = start

    def submit(self, *arguments: Any) -> Future[None]:  # type: ignore[override]
        """Start a call; gRPC passes a function that would run its handler in a thread."""
        _, _, event, state, *_ = arguments
        self._start_call(PolledCall(event, state))
        return _DONE


@functools.cache
def unsupported_reason() -> str | None:
    """Return why this version of grpcio cannot be used this way; None if it can.

    It checks names and signatures, and makes one call to a temporary server.
    """
    return _missing or _changed_name() or _failed_self_call()


def _changed_name() -> str | None:
    for name, expected in _SIGNATURES.items():
        function = getattr(_server, name, None)
        if function is None:
            return f"grpc._server has no {name}"
        if tuple(inspect.signature(function).parameters) != expected:
            return f"the parameters of grpc._server.{name} have changed"
    state = _server._RPCState()
    for name in _STATE_ATTRIBUTES:
        if not hasattr(state, name):
            return f"grpc._server._RPCState has no {name}"
    for owner in (_server, cygrpc):
        for name in _NAMES[owner.__name__]:
            if not hasattr(owner, name):
                return f"{owner.__name__} has no {name}"
    return None


def _echo(call: PolledCall) -> None:
    """Send the message of a stream back, then end it."""

    def received(message: bytes | None) -> None:
        with call.lock:
            call.send(message or b"", call.end)

    call.receive(received)


def _failed_self_call() -> str | None:
    name = f"pooling-{uuid.uuid4().hex}"
    address = f"unix-abstract:{name}" if sys.platform == "linux" else "127.0.0.1:0"
    with ThreadPoolExecutor(1) as threads:
        handlers: dict[str, Any] = {"Echo": grpc.stream_stream_rpc_method_handler(polled(_echo))}
        server = grpc.server(threads)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        try:
            port = server.add_insecure_port(address)
            server.start()
            target = address if address.startswith("unix") else f"127.0.0.1:{port}"
            with grpc.insecure_channel(target, [("grpc.enable_http_proxy", 0)]) as channel:
                call: Any = channel.unary_stream(f"/{name}/Echo")
                replies = list(call(b"self-call", timeout=_SELF_CALL_S, wait_for_ready=True))
        except (grpc.RpcError, RuntimeError) as error:
            return f"a call to itself failed: {error}"
        finally:
            server.stop(1).wait(_SELF_CALL_S)  # forever if a thread of gRPC did not start
    return None if replies == [b"self-call"] else f"a call to itself returned {replies!r}"


class _Behavior(functools.partial[Any]):
    """Handler function that gRPC calls in a thread pool of our choice."""

    experimental_thread_pool: ThreadPoolExecutor


def in_pool(pool: ThreadPoolExecutor, handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return the handler, to be run by the pool instead of the server's own threads."""
    behavior = _Behavior(handler)
    behavior.experimental_thread_pool = pool
    return behavior


def polled(start: Callable[[PolledCall], None]) -> Callable[..., Any]:
    """Return a handler of a method whose calls are started in the polling thread.

    Args:
        start: as in `PollingThreadExecutor`.
    """
    return in_pool(PollingThreadExecutor(start), lambda *_: None)  # never called
