"""Calls that arrive over HTTP: admission, computation in a thread, times and metrics.

All protocols over HTTP use `HttpCall`. It performs the same steps as gRPC's unary calls,
with the same classes, but never blocks the event loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from pooling_engine import DeadlineError, PoolingError
from pooling_server.config import ServerConfig
from pooling_server.http.bodies import ReplySender, read_body
from pooling_server.oip.service import InferenceService
from pooling_server.serving.executor import Admission, Executor, run_in_thread
from pooling_server.serving.limits import check_message_size
from pooling_server.serving.rpcs import REQUEST_ID, Rpc, Rpcs, Trailers, Work
from pooling_server.serving.unary_calls import Prepare
from pooling_wire import GET_SERVER_INFO
from pooling_wire.shared_memory import NO_REGIONS

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class HttpServices:
    """Parts of the server that all calls over HTTP share.

    Attributes:
        config: options of the server.
        executor: admits calls and grants compute slots.
        rpcs: state that all RPCs share.
        threads: pool in which calls are answered.
        prepares: decoders of the unary methods of `pooling.v1`, by name.
        inference: methods of the Open Inference Protocol.
        failed: counts a failed RPC; returns its error and its trailers.
        is_ready: returns True while health reports SERVING.
    """

    config: ServerConfig
    executor: Executor
    rpcs: Rpcs
    threads: ThreadPoolExecutor
    prepares: dict[str, Prepare]
    inference: InferenceService
    failed: Callable[[Exception, Rpc, Work | None], tuple[PoolingError, Trailers]]
    is_ready: Callable[[], bool]


class HttpCaller:
    """Client of a request, as an RPC reads it."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._headers: Headers = scope["headers"]

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]]:
        """Return the headers; names are in lower case."""
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self._headers]

    def peer(self) -> str:
        """Return the address of the client."""
        host, port = self._scope.get("client") or ("unknown", 0)
        return f"http:{host}:{port}"


class HttpCall:
    """One call, from the headers of its request until its reply is sent.

    Args:
        services: parts of the server that all calls share.
        name: name of the method, for metrics.
        scope: the ASGI scope of the request.
        receive: receives the request.

    Attributes:
        trailers: id and times of the call, once it has ended; then `ReplySender` sends them.
    """

    def __init__(self, services: HttpServices, name: str, scope: Scope, receive: Receive) -> None:
        self._services, self._receive = services, receive
        self._is_admitted = name != GET_SERVER_INFO  # which answers when the server is saturated
        self._headers: Headers = scope["headers"]
        self._rpc = Rpc(services.rpcs, name, HttpCaller(scope))
        self._admission: Admission | None = None
        self._is_computing = self._is_left = False
        self._work: Work | None = None
        self._gone = asyncio.Event()
        self._has_outcome = threading.Lock()  # held from then on
        self.trailers: Trailers = ()

    @property
    def request_id(self) -> str:
        """The client's `x-request-id`, or a new one."""
        return self._rpc.request_id

    @property
    def is_gone(self) -> bool:
        """True once the client has disconnected."""
        return self._gone.is_set()

    async def message(self) -> bytes:
        """Admit the call, then receive its message.

        Raises:
            PoolingError: the call is rejected, or its message is too large or too slow.
            ClientDisconnect: the client has disconnected.
        """
        self._rpc.authorize()
        if self._is_admitted:
            self._admission = self._services.executor.admit()
        message = await read_body(self._receive, self._headers, self._services.config)
        self._work = work = self._rpc.receive(len(message))
        work.authorize()
        work.reserve(len(message))
        return message

    async def answer(
        self, prepare: Prepare, message: bytes, deadline_s: float | None = None
    ) -> bytes:
        """Compute the call in a thread, and return the serialized reply.

        Args:
            prepare: decodes the message.
            message: the message, which has arrived.
            deadline_s: seconds until the deadline of the call; None if it has none. It is at most
                `http_timeout_s`.

        Raises:
            PoolingError: the call is invalid, exceeds a limit or cannot be computed now.
            DeadlineError: the deadline has passed. A computation that has begun continues, but
                its result is dropped.
            asyncio.CancelledError: the client has disconnected.
        """
        limit_s, is_limited = self._services.config.http_timeout_s, False
        if limit_s and (deadline_s is None or deadline_s > limit_s):
            deadline_s, is_limited = limit_s, True
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[bytes] = loop.create_future()
        watch = loop.create_task(self._watch(answered))
        try:
            run_in_thread(
                self._services.threads,
                partial(self._run, loop, answered, prepare, message, deadline_s),
            )
            self._is_computing = True
            await asyncio.wait({answered}, timeout=deadline_s)
            if not answered.done() and self._has_outcome.acquire(blocking=False):
                raise _expired(limit_s if is_limited else 0)
            return await answered
        except DeadlineError:
            raise _expired(limit_s if is_limited else 0) from None
        except asyncio.CancelledError:
            self._gone.set()
            self.trailers = self.trailers or ((REQUEST_ID, self.request_id),)
            raise
        finally:
            answered.cancel()
            watch.cancel()

    def fail(self, exception: Exception) -> PoolingError:
        """End the call with an error, and return the error to send."""
        error, self.trailers = self._services.failed(exception, self._rpc, self._work)
        return error

    async def gone(self) -> None:
        """Wait until the client has disconnected, while the call is computed."""
        await self._gone.wait()

    def finish(self) -> None:
        """End the counts of a call whose reply was sent or whose client has disconnected."""
        if self._work is not None:
            self._work.release()
        if self._admission is not None:
            if not self._is_computing:
                self._leave()
            self._admission.finish()

    def _run(
        self,
        loop: asyncio.AbstractEventLoop,
        answered: asyncio.Future[bytes],
        prepare: Prepare,
        message: bytes,
        deadline_s: float | None,
    ) -> None:
        """Answer the call in a thread of the pool."""
        try:
            compute = partial(self._compute, prepare, message)
            if self._is_admitted:
                reply = self._services.executor.compute(compute, deadline_s)
            else:
                reply = compute()
        except Exception as error:
            self._has_outcome.acquire(blocking=False)
            done = partial(_set_error, answered, error)
        else:
            if self._has_outcome.acquire(blocking=False):
                assert self._work is not None
                self._work.succeed(len(reply))
                self.trailers = self._rpc.succeed()
            done = partial(_set, answered, reply)
        self._leave()
        with suppress(RuntimeError):  # the event loop has ended, because the server stops
            loop.call_soon_threadsafe(done)

    def _compute(self, prepare: Prepare, message: bytes) -> bytes:
        if self.is_gone or self._has_outcome.locked():  # while the call waited
            return b""
        assert self._work is not None
        check_message_size(message, self._services.config)
        return prepare(self._work, message, NO_REGIONS).answer(NO_REGIONS)

    def _leave(self) -> None:
        """End the count of calls in flight."""
        if self._admission is not None and not self._is_left:
            self._is_left = True
            self._admission.leave()

    async def _watch(self, answered: asyncio.Future[bytes]) -> None:
        """Cancel the computation when the client disconnects."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone.set()
        answered.cancel()


def _expired(limit_s: float) -> DeadlineError:
    """Return the error of a call without a reply at its deadline, or at the limit of the server."""
    if not limit_s:
        return DeadlineError("the deadline passed before the call was computed")
    return DeadlineError(
        f"the call was not computed within {limit_s:g} s, this server's limit (--http-timeout-s)",
        facts={
            "limit": "http_timeout_s",
            "value": f"{limit_s:g}",
            "option": "--http-timeout-s",
        },
    )


Endpoint = Callable[[HttpCall, Scope, Receive, Send], Awaitable[None]]


class Served:
    """ASGI application for the calls of one method.

    It is a class because Starlette passes plain functions a request, and sends what they return.

    Args:
        services: parts of the server that all calls share.
        name: name of the method, for metrics.
        endpoint: receives the message of a call, computes it and sends the reply.
    """

    def __init__(self, services: HttpServices, name: str, endpoint: Endpoint) -> None:
        self._services, self._name, self._endpoint = services, name, endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call."""
        call = HttpCall(self._services, self._name, scope, receive)
        try:
            await self._endpoint(call, scope, receive, ReplySender(send, call))
        except ClientDisconnect:
            pass
        except asyncio.CancelledError:
            if not call.is_gone:
                raise
        finally:
            call.finish()


def _set(answered: asyncio.Future[bytes], reply: bytes) -> None:
    if not answered.done():
        answered.set_result(reply)


def _set_error(answered: asyncio.Future[bytes], error: Exception) -> None:
    if not answered.done():
        answered.set_exception(error)
