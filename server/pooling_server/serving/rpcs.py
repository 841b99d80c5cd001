"""RPCs and their calls: client, id, times and result of each.

Every call of every protocol uses these two classes. An `Rpc` is a unary call or a stream. A `Work`
is the one call of a unary RPC, or one item of a stream.
"""

from __future__ import annotations

import itertools
import logging
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from time import perf_counter
from typing import Protocol

import pooling_wire
from pooling_engine import PoolingError
from pooling_server.observability.metrics import Metrics
from pooling_server.observability.tracing import end_span, is_tracing, start_span
from pooling_server.security.tokens import AUTHORIZATION, Session, Tokens
from pooling_server.serving.byte_budget import ByteBudget

_log = logging.getLogger("pooling_server")
REQUEST_ID, SERVER_TIMING = "x-request-id", "server-timing"
SMALL_BYTES = 64 << 10  # not reserved: the limit of calls in flight bounds them
_LEGAL_ID = re.compile(r"[!-~]{1,128}")

Trailers = tuple[tuple[str, str | bytes], ...]


class Caller(Protocol):
    """Client of an RPC, such as a `grpc.ServicerContext`."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]]:
        """Return the metadata, or the HTTP headers, of the request; names are in lower case."""

    def peer(self) -> str:
        """Return the address of the client."""


class Rpcs:
    """State that all RPCs of a server share.

    Args:
        metrics: counts calls; None if metrics are off.
        budget: bytes of calls in flight.
        tokens: tokens that clients need; None if they need none.
    """

    def __init__(self, metrics: Metrics | None, budget: ByteBudget, tokens: Tokens | None) -> None:
        self.metrics, self.budget, self.tokens = metrics, budget, tokens
        self.is_tracing = is_tracing()
        self._prefix, self._numbers = secrets.token_hex(6), itertools.count(1)

    def new_id(self) -> str:
        """Return an id that no other RPC has."""
        return f"{self._prefix}-{next(self._numbers):x}"


class Rpc:
    """One RPC, from its start to its end.

    Args:
        rpcs: state that all RPCs share.
        name: name of the method, such as "Forward".
        caller: client of the call.

    Attributes:
        name: name of the method.
        request_id: the client's `x-request-id`, or a new one.
        session: token of the client, once `authorize` was called; None if none is needed.
        queue_s: seconds for which its calls waited, so far.
        compute_s: seconds for which its calls were computed, so far.
    """

    __slots__ = (
        "_caller",
        "_peer",
        "_span",
        "_started_s",
        "compute_s",
        "name",
        "queue_s",
        "request_id",
        "rpcs",
        "session",
    )

    def __init__(self, rpcs: Rpcs, name: str, caller: Caller) -> None:
        self._started_s = perf_counter()
        self.rpcs, self.name, self._caller = rpcs, name, caller
        self._peer: str | None = None
        metadata = caller.invocation_metadata()
        self.request_id = ""
        for key, value in metadata:
            if key == REQUEST_ID and isinstance(value, str) and _LEGAL_ID.fullmatch(value):
                self.request_id = value
        if not self.request_id:
            self.request_id = rpcs.new_id()
        self.session: Session | None = None
        self.queue_s = self.compute_s = 0.0
        self._span = None
        if rpcs.is_tracing:
            self._span = start_span(pooling_wire.SERVICE_NAME, name, metadata)

    @property
    def peer(self) -> str:
        """Address of the client; read late, because few calls need it."""
        if self._peer is None:
            self._peer = self._caller.peer()
        return self._peer

    def authorize(self) -> None:
        """Check the token of the client, if the server has tokens.

        Raises:
            PermissionDeniedError: the token is missing, unknown or revoked.
        """
        if self.rpcs.tokens is not None:
            values = [v for key, v in self._caller.invocation_metadata() if key == AUTHORIZATION]
            self.session = self.rpcs.tokens.session(values)

    def receive(self, nbytes: int) -> Work:
        """Return the call, or the item of a stream, whose message has arrived."""
        return Work(self, nbytes)

    def succeed(self) -> Trailers:
        """End the RPC; return its trailing metadata."""
        return self._end("OK")

    def fail(self, error: PoolingError, work: Work | None = None) -> Trailers:
        """End the RPC with an error; return its trailing metadata.

        Args:
            error: the error.
            work: its call, if the message of a unary RPC has arrived.
        """
        code = pooling_wire.encode_error(error).code.name
        if work is not None:
            work.fail(error)
        elif self.rpcs.metrics is not None:
            total_s = perf_counter() - self._started_s
            self.rpcs.metrics.call((self.name, "", code), total_s, None, None, 0, 0)
            self.rpcs.metrics.refuse(error.reason)
        return self._end(code)

    def _end(self, code: str) -> Trailers:
        total_ms = (perf_counter() - self._started_s) * 1e3
        timing = (
            f"queue;dur={self.queue_s * 1e3:.3f}, compute;dur={self.compute_s * 1e3:.3f}, "
            f"total;dur={total_ms:.3f}"
        )
        if self._span is not None:
            end_span(self._span, code, {REQUEST_ID: self.request_id, SERVER_TIMING: timing})
        if _log.isEnabledFor(logging.INFO):
            _log.info("%s %s %s", self.name, code, timing, extra={"request_id": self.request_id})
        return (SERVER_TIMING, timing), (REQUEST_ID, self.request_id)


class Work:
    """A call of a unary RPC, or an item of a stream, from its arrival until its reply is built.

    Args:
        rpc: its RPC.
        nbytes: size of its message.

    Attributes:
        mode: mode of the call, once its message is decoded.
    """

    __slots__ = (
        "_compute_s",
        "_is_released",
        "_queue_s",
        "_received_s",
        "_reserved",
        "mode",
        "nbytes",
        "rpc",
    )

    def __init__(self, rpc: Rpc, nbytes: int) -> None:
        self.rpc, self.nbytes, self.mode = rpc, nbytes, ""
        self._received_s = perf_counter()
        self._queue_s: float | None = None
        self._compute_s: float | None = None
        self._reserved: list[int] | None = None
        self._is_released = False

    def authorize(self) -> None:
        """Check the token and its rates again.

        Raises:
            PermissionDeniedError: the token was removed or revoked.
            OverloadedError: the token is over a rate.
        """
        session = self.rpc.session
        if session is not None:
            session.check()
            session.count_bytes(self.nbytes)

    def reserve(self, nbytes: int) -> None:
        """Reserve bytes, before they are allocated, unless they are few.

        Raises:
            OverloadedError, TensorTooLargeError: as `ByteBudget.reserve`.
        """
        if nbytes > SMALL_BYTES:
            self.rpc.rpcs.budget.reserve(self.rpc.peer, nbytes)
            if self._reserved is None:
                self._reserved = []
            self._reserved.append(nbytes)
            if self._is_released:  # meanwhile, in another thread: the client has disconnected
                self.release()

    def decoded(self, start_s: float) -> None:
        """Count the time since a start as computation."""
        self._compute_s = perf_counter() - start_s

    def computed(self, start_s: float) -> None:
        """Count the time since a start as computation, and the time before as waiting."""
        decode_s = self._compute_s or 0.0
        self._queue_s = start_s - self._received_s - decode_s
        self._compute_s = decode_s + perf_counter() - start_s

    def succeed(self, reply_bytes: int) -> None:
        """Count a call whose reply is built."""
        self._count("OK", reply_bytes)
        if self.rpc.session is not None:
            self.rpc.session.count_bytes(reply_bytes)

    def fail(self, error: PoolingError) -> None:
        """Count a call that failed."""
        if self.rpc.rpcs.metrics is not None:
            self.rpc.rpcs.metrics.refuse(error.reason)
        self._count(pooling_wire.encode_error(error).code.name, 0)

    def release(self) -> None:
        """Release the bytes, after the reply was sent or the client has disconnected."""
        self._is_released = True
        if self._reserved:
            budget, peer = self.rpc.rpcs.budget, self.rpc.peer
            with suppress(IndexError):  # another thread releases them as well
                while True:
                    budget.release(peer, self._reserved.pop())

    def _count(self, code: str, sent_bytes: int) -> None:
        rpc, queue_s, compute_s = self.rpc, self._queue_s, self._compute_s
        rpc.queue_s += queue_s or 0.0
        rpc.compute_s += compute_s or 0.0
        if rpc.rpcs.metrics is not None:
            total_s = perf_counter() - self._received_s
            labels = rpc.name, self.mode, code
            rpc.rpcs.metrics.call(labels, total_s, queue_s, compute_s, self.nbytes, sent_bytes)
