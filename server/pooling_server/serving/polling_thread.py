"""Calls in gRPC's polling thread. All use of private parts of gRPC is in this module.

gRPC's server hands every call to a pool of threads, and each message of the call to that thread.
These hand-overs take longer than a small pooling call. `PolledMethods` requests the calls of its
methods itself, and `PolledCall` starts the operations of a call with callbacks, all of which run in
the polling thread.
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
from concurrent.futures import ThreadPoolExecutor
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
    "_receive_close_on_server": ("state",),
    "_status": ("rpc_event", "state", "serialized_response"),
}
_STATE_ATTRIBUTES = (
    "callbacks",
    "client",
    "condition",
    "due",
    "initial_metadata_allowed",
    "statused",
)
_SERVER_ATTRIBUTES = ("completion_queue", "due", "lock", "rpc_states", "server", "stage")
_NAMES = {
    "grpc._server": (
        "_CANCELLED",
        "_RECEIVE_CLOSE_ON_SERVER_TOKEN",
        "_RECEIVE_MESSAGE_TOKEN",
        "_SEND_MESSAGE_TOKEN",
        "_SEND_STATUS_FROM_SERVER_TOKEN",
        "_ServerStage",
    ),
    "grpc._cython.cygrpc": (
        "ReceiveCloseOnServerOperation",
        "ReceiveMessageOperation",
        "SendInitialMetadataOperation",
        "SendMessageOperation",
        "SendStatusFromServerOperation",
        "StatusCode",
    ),
}
Start = Callable[["PolledCall"], None]


class PolledCall:
    """Operations of one call, whose callbacks run in the polling thread.

    A callback must not block. Operations are started with `lock` held, while the call is active.
    A disconnect of the client is reported only after `watch_client`, which starts one more
    operation. A unary call that is answered as soon as its message arrives does not need it.

    Attributes:
        lock: lock of the call; re-entrant.
        context: context of the call, as a handler receives it.
    """

    __slots__ = ("_event", "_is_watched", "_state", "context", "lock")

    def __init__(self, event: Any, state: Any) -> None:
        self._event, self._state = event, state
        self._is_watched = False
        self.lock: threading.Condition = state.condition
        self.context: grpc.ServicerContext = _server._Context(event, state, None)

    @property
    def is_active(self) -> bool:
        """True until `end` or `reply` was called, or a watched client has disconnected."""
        return bool(_server._is_rpc_state_active(self._state))

    @property
    def is_receiving(self) -> bool:
        """True from `receive` until the message has arrived; read it with `lock` held."""
        return _server._RECEIVE_MESSAGE_TOKEN in self._state.due

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call a function when the status was sent, or the client has disconnected."""
        self._state.callbacks.append(callback)

    def watch_client(self) -> None:
        """Report a disconnect of the client from now on."""
        if not self._is_watched:
            closed = _server._receive_close_on_server(self._state)
            operations = (cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),)
            self._begin(_server._RECEIVE_CLOSE_ON_SERVER_TOKEN, operations, closed)
            self._is_watched = True

    def receive(self, on_message: Callable[[bytes | None], None]) -> None:
        """Receive a message; the callback gets None if the client sends no more."""
        token = _server._RECEIVE_MESSAGE_TOKEN

        def received(event: Any) -> Any:
            message = event.batch_operations[0].message()
            if message is not None or self._is_watched:
                return self._completed(token, on_message, message)
            with self.lock:  # the client has disconnected, or sends none: find out, then ask again
                self._state.due.remove(token)
                self.watch_client()
                self.receive(on_message)
            return None, ()

        self._begin(token, (cygrpc.ReceiveMessageOperation(_NO_FLAGS),), received)

    def send(self, message: bytes, on_sent: Callable[[], None]) -> None:
        """Send a message; one at a time."""
        token, state = _server._SEND_MESSAGE_TOKEN, self._state
        operations: tuple[Any, ...] = (cygrpc.SendMessageOperation(message, _NO_FLAGS),)
        if state.initial_metadata_allowed:
            operations = (cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS), *operations)
        self._begin(token, operations, lambda _: self._completed(token, on_sent))
        state.initial_metadata_allowed = False

    def reply(self, message: bytes, trailers: tuple[tuple[str, str | bytes], ...]) -> None:
        """Send the only message and the trailers of a unary call, and end it with the status OK."""
        token, state = _server._SEND_STATUS_FROM_SERVER_TOKEN, self._state
        operations: tuple[Any, ...] = (
            cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS),
            cygrpc.SendMessageOperation(message, _NO_FLAGS),
            cygrpc.SendStatusFromServerOperation(trailers, cygrpc.StatusCode.ok, b"", _NO_FLAGS),
        )
        with self.lock:
            if self.is_active:
                if not self._is_watched:  # gRPC cancels a call that has not seen its end
                    operations += (cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),)
                self._begin(token, operations, lambda _: self._finished(token))
                state.statused = True

    def end(self) -> None:
        """End the call with the status of the context."""
        with self.lock:
            self.watch_client()
        _server._status(self._event, self._state, None)

    def _begin(
        self, token: str, operations: tuple[Any, ...], completed: Callable[[Any], Any]
    ) -> None:
        """Start operations, which are due from then on, unless gRPC cannot start them."""
        self._state.due.add(token)
        try:
            self._event.call.start_server_batch(operations, completed)
        except BaseException:
            self._state.due.remove(token)
            raise

    def _finished(self, token: str) -> Any:
        """Remove an operation from those that are due; return what gRPC has to do next."""
        with self.lock:
            return _server._possibly_finish_call(self._state, token)

    def _completed(self, token: str, callback: Callable[..., None], *arguments: Any) -> Any:
        after = self._finished(token)
        try:
            callback(*arguments)
        except MemoryError:  # even the error could not be reported: the process has to end
            raise
        except Exception:  # it would end the polling thread
            _log.exception("a bug ends a call")
            self.context.cancel()
        return after


class PolledMethods:
    """Methods whose calls start in the polling thread.

    Args:
        server: the server; not started yet.
    """

    def __init__(self, server: grpc.Server) -> None:
        self._server: Any = server
        self._methods: list[_PolledMethod] = []

    def add(self, service: str, name: str, start: Start) -> None:
        """Add a method.

        Args:
            service: full name of its service.
            name: name of the method.
            start: called in the polling thread when a call starts, before its message has arrived,
                with the lock of the call held.
        """
        path = f"/{service}/{name}"
        self._server._state.server.register_method(path)
        self._methods.append(_PolledMethod(self._server._state, path, start))

    def serve(self) -> None:
        """Accept calls; the server was started."""
        with self._server._state.lock:
            for method in self._methods:
                method.request()


class _PolledMethod:
    """One method; it is the tag with which gRPC's polling thread reports that a call has started.

    gRPC calls a tag with the event. The result is the state of a call that has ended, or None, and
    functions to call then.
    """

    def __init__(self, server_state: Any, path: str, start: Start) -> None:
        self._server, self._path, self._start = server_state, path, start

    def request(self) -> None:
        """Request the next call from gRPC, with the lock of the server held."""
        queue = self._server.completion_queue
        self._server.server.request_registered_call(queue, queue, self._path, self)
        self._server.due.add(self)

    def __call__(self, event: Any) -> tuple[Any, tuple[()]]:
        """Start a call, and request the next one unless the server is stopping."""
        with self._server.lock:
            self._server.due.remove(self)
            state = _server._RPCState()
            self._server.rpc_states.add(state)
            if not event.success:  # the server is stopping; gRPC then checks that nothing is left
                return state, ()
            if self._server.stage is _server._ServerStage.STARTED:
                self.request()
        call = PolledCall(event, state)
        try:
            with call.lock:
                self._start(call)
        except MemoryError:  # even the error could not be reported: the process has to end
            raise
        except Exception:  # it would end the polling thread
            _log.exception("a bug ends a call")
            call.context.set_code(grpc.StatusCode.INTERNAL)
            call.end()
        return None, ()


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
    with ThreadPoolExecutor(1) as threads:
        server: Any = grpc.server(threads)
    for name in _SERVER_ATTRIBUTES:
        if not hasattr(getattr(server, "_state", None), name):
            return f"the state of grpc._server._Server has no {name}"
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

    call.watch_client()
    call.receive(received)


def _echo_once(call: PolledCall) -> None:
    """Send the message of a unary call back."""
    call.receive(lambda message: call.reply(message or b"", ()))


def _failed_self_call() -> str | None:
    name = f"pooling-{uuid.uuid4().hex}"
    address = f"unix-abstract:{name}" if sys.platform == "linux" else "127.0.0.1:0"
    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        try:
            methods = PolledMethods(server)
            methods.add(name, "Echo", _echo)
            methods.add(name, "EchoOnce", _echo_once)
            port = server.add_insecure_port(address)
            server.start()
            methods.serve()
            target = address if address.startswith("unix") else f"127.0.0.1:{port}"
            with grpc.insecure_channel(target, [("grpc.enable_http_proxy", 0)]) as channel:
                stream: Any = channel.unary_stream(f"/{name}/Echo")
                replies = list(stream(b"self-call", timeout=_SELF_CALL_S, wait_for_ready=True))
                unary: Any = channel.unary_unary(f"/{name}/EchoOnce")
                replies.append(unary(b"self-call", timeout=_SELF_CALL_S))
        except (grpc.RpcError, RuntimeError, TypeError) as error:
            return f"a call to itself failed: {error}"
        finally:
            server.stop(1).wait(_SELF_CALL_S)  # forever if a thread of gRPC did not start
    if replies != [b"self-call"] * 2:
        return f"calls to itself returned {replies!r}"
    return None


class _Behavior(functools.partial[Any]):
    """Handler function that gRPC calls in a thread pool of our choice."""

    experimental_thread_pool: ThreadPoolExecutor


def in_pool(pool: ThreadPoolExecutor, handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return the handler, to be run by the pool instead of the server's own threads."""
    behavior = _Behavior(handler)
    behavior.experimental_thread_pool = pool
    return behavior
