"""Base class of both clients: arguments and state that do not depend on threads or asyncio."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import grpc
import numpy as np
from numpy.typing import DTypeLike, NDArray

from pooling_client import _channel
from pooling_client._connection import Connection, Metadata
from pooling_client._copying import arguments_of, rebuilt
from pooling_client._forks import renew_after_fork
from pooling_client._retries import NO_PATIENCE_S
from pooling_client._shared_memory import SharedMemory
from pooling_client._steps import Session
from pooling_client._transports.aio import AsyncGrpcTransport
from pooling_client._transports.sync import GrpcTransport
from pooling_engine import InvalidSpecError
from pooling_wire import keepalive as pings

Array = NDArray[Any]


class Client(ABC):
    """Arguments and state of a client. The classes of the clients document the arguments."""

    _transport: GrpcTransport | AsyncGrpcTransport
    _interceptors: ClassVar[tuple[type, ...]]  # legal types
    _interceptors_of: ClassVar[str]

    def __init__(
        self,
        target: str = _channel.DEFAULT_TARGET,
        *,
        timeout: float = _channel.DEFAULT_TIMEOUT_S,
        connections: int = 1,
        keepalive: float = pings.INTERVAL_S,
        keepalive_timeout: float = pings.TIMEOUT_S,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | Callable[[], str] | None = None,
        metadata: Metadata | Callable[[], Metadata] | None = None,
        authority: str | None = None,
        interceptors: Sequence[Any] = (),
        compression: grpc.Compression | None = None,
        wait_for_ready: bool = True,
        shared_streams: bool = True,
    ) -> None:
        connection = Connection(
            target,
            connections,
            keepalive,
            keepalive_timeout,
            credentials,
            token,
            metadata,
            authority,
            interceptors,
            compression,
            wait_for_ready,
            shared_streams,
        )
        self._check_interceptors(interceptors)
        self.target = target
        self._connection = connection
        self._timeout_s = _channel.seconds(timeout)
        self._shared_memory = SharedMemory(target)
        self._session = Session(
            self._shared_memory,
            math.inf if wait_for_ready else NO_PATIENCE_S,
            shares_streams=connection.shares_streams,
        )
        self._open()
        renew_after_fork(self)

    def _check_interceptors(self, interceptors: Sequence[Any]) -> None:
        for number, interceptor in enumerate(interceptors):
            if not isinstance(interceptor, self._interceptors):
                name = f"interceptors[{number}]"
                raise InvalidSpecError(
                    f"{name} is of type {type(interceptor).__name__}; "
                    f"it must be a client interceptor of {self._interceptors_of}",
                    field="interceptors",
                )

    @abstractmethod
    def _open(self) -> None:
        """Create the transport of the client."""

    def empty(self, shape: int | Sequence[int], dtype: DTypeLike = np.float32) -> Array:
        """Return an uninitialised array, in memory shared with the server if possible.

        Calls copy nothing to or from such arrays, as tensors or as `out`. Memory is shared over
        ``unix:/PATH``, as far as the server leases it; otherwise the array is an ordinary one.

        Args:
            shape: size, or sizes, of the array.
            dtype: element type of the array.

        Returns:
            The array. It stays valid after the client is closed.
        """
        return self._shared_memory.empty(shape, dtype)

    def _renew(self) -> None:
        """Continue in a forked process with new connections and new shared memory."""
        self._transport.renew()
        self._shared_memory.renew()

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuilt, (type(self), arguments_of(self._connection, self._timeout_s))

    def __copy__(self) -> Self:
        return rebuilt(type(self), arguments_of(self._connection, self._timeout_s))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.__copy__()

    def _start(self, timeout: float | None, progress: object) -> float:
        """Return the deadline of a call that begins now, after the check of its options."""
        if progress is not None and not callable(progress):
            text = f"progress is {progress!r}; it must be a function or None"
            raise InvalidSpecError(text, field="progress")
        return time.monotonic() + self._seconds(timeout)

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout_s if timeout is None else _channel.seconds(timeout)
