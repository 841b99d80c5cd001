"""Unary handlers in gRPC's polling thread. All use of private parts of gRPC is in this module.

gRPC's server hands every call to a pool of threads, and the message of the call to that thread.
These hand-overs take longer than a small pooling call. `PollingThreadExecutor` takes the place of
the pool (`experimental_thread_pool`): it receives the message by a callback, which runs in the
polling thread, and then runs gRPC's own function for the call there or in a thread.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import grpc

_server: Any = None
cygrpc: Any = None
_missing: str | None = None
try:
    _server = importlib.import_module("grpc._server")
    cygrpc = importlib.import_module("grpc._cython.cygrpc")
except ImportError as error:  # another layout of grpcio
    _missing = str(error)

_NO_FLAGS = 0
_SELF_CALL_S = 10
# Parameters of the private functions of `grpc._server` that this module relies on.
_SIGNATURES = {
    "_is_rpc_state_active": ("state",),
    "_receive_message": ("state", "call", "request_deserializer"),
    "_unary_response_in_pool": (
        "rpc_event",
        "state",
        "behavior",
        "argument_thunk",
        "request_deserializer",
        "response_serializer",
    ),
}
_STATE_ATTRIBUTES = ("callbacks", "condition", "due", "request")
_DONE: Future[None] = Future()
_DONE.set_result(None)


class Reception(Protocol):
    """One call, from its start to the arrival of its message; the argument of its handler."""

    @property
    def is_rejected(self) -> bool:
        """True if the handler has to run at once, without the message."""
        ...

    def receive(self, message: bytes, peer: Callable[[], str]) -> bool:
        """Take the message; return True if the handler may run in the polling thread.

        Args:
            message: the message; empty if the client sent none.
            peer: returns the address of the client.
        """
        ...

    def begin(self) -> bool:
        """Return True when first called: the handler runs once."""
        ...

    def refuse(self) -> None:
        """Prepare the handler to reject the call, because no thread can run it."""
        ...

    def abandon(self) -> None:
        """Handle a client that has disconnected before the message arrived."""
        ...

    def finish(self) -> None:
        """Handle the end of the call: the reply was sent, or the client has disconnected."""
        ...


class PollingThreadExecutor(ThreadPoolExecutor):
    """Stands in for the thread pool of unary handlers.

    Args:
        threads: runs the handlers that may not run in the polling thread.
        start: called in the polling thread when a call starts, before its message has arrived.
    """

    def __init__(self, threads: ThreadPoolExecutor, start: Callable[[], Reception]) -> None:
        super().__init__(1)
        self._handler_threads = threads
        self._start_reception = start

    def submit(self, *arguments: Any) -> Future[None]:  # type: ignore[override]
        """Receive the message of a call and run its handler.

        gRPC calls this in the polling thread, with the lock of the call held and the arguments of
        `_unary_response_in_pool` behind two functions.
        """
        run, function, event, state, behavior, _, *serializers = arguments
        reception = self._start_reception()
        handler = (function, event, state, behavior, lambda: reception, *serializers)
        if reception.is_rejected:
            run(*handler)
            return _DONE
        state.callbacks.append(reception.finish)
        on_message = _server._receive_message(state, event.call, None)

        def received(message_event: Any) -> Any:
            after = on_message(message_event)
            with state.condition:
                message, state.request = state.request, None
                is_active = _server._is_rpc_state_active(state)
            if not is_active:
                reception.abandon()
                return after
            answer = functools.partial(_run_once, reception, run, *handler)
            if reception.receive(message or b"", lambda: _peer(event)):
                answer()
                return after
            try:
                self._handler_threads.submit(answer)
            except RuntimeError:  # no thread can be started; the pool may still run the handler
                reception.refuse()
                answer()
            return after

        state.due.add(_server._RECEIVE_MESSAGE_TOKEN)
        event.call.start_server_batch((cygrpc.ReceiveMessageOperation(_NO_FLAGS),), received)
        return _DONE


def _run_once(reception: Reception, run: Callable[..., None], *handler: Any) -> None:
    if reception.begin():
        run(*handler)


def _peer(event: Any) -> str:
    peer = event.call.peer()
    return peer.decode() if isinstance(peer, bytes) else peer


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
    for owner, name in ((_server, "_RECEIVE_MESSAGE_TOKEN"), (cygrpc, "ReceiveMessageOperation")):
        if not hasattr(owner, name):
            return f"{owner.__name__} has no {name}"
    return None


class _Echo:
    """Reception of the self-call; its handler returns the message."""

    is_rejected = False
    message = b""

    def receive(self, message: bytes, peer: Callable[[], str]) -> bool:
        self.message = message
        return True

    def begin(self) -> bool:
        return True

    def refuse(self) -> None:
        pass

    def abandon(self) -> None:
        pass

    def finish(self) -> None:
        pass


def _failed_self_call() -> str | None:
    name = f"pooling-{uuid.uuid4().hex}"
    address = f"unix-abstract:{name}" if sys.platform == "linux" else "127.0.0.1:0"
    with ThreadPoolExecutor(1) as threads:
        echo = in_pool(PollingThreadExecutor(threads, _Echo), lambda echo, _: echo.message)
        handlers: dict[str, Any] = {"Echo": grpc.stream_unary_rpc_method_handler(echo)}
        server = grpc.server(threads)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        try:
            port = server.add_insecure_port(address)
            server.start()
            target = address if address.startswith("unix") else f"127.0.0.1:{port}"
            with grpc.insecure_channel(target, [("grpc.enable_http_proxy", 0)]) as channel:
                call: Any = channel.unary_unary(f"/{name}/Echo")
                reply = call(b"self-call", timeout=_SELF_CALL_S, wait_for_ready=True)
        except (grpc.RpcError, RuntimeError) as error:
            return f"a call to itself failed: {error}"
        finally:
            server.stop(1).wait()
    return None if reply == b"self-call" else f"a call to itself returned {reply!r}"


class _Behavior(functools.partial[Any]):
    """Handler function that gRPC calls in a thread pool of our choice."""

    experimental_thread_pool: ThreadPoolExecutor


def in_pool(pool: ThreadPoolExecutor, handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return the handler, to be run by the pool instead of the server's own threads."""
    behavior = _Behavior(handler)
    behavior.experimental_thread_pool = pool
    return behavior
