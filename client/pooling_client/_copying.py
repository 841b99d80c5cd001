"""Copies of a client: a new client with the same arguments."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import grpc

from pooling_client._connection import Connection

Client = TypeVar("Client")


class _Arguments(dict[str, Any]):
    """Arguments of a client; pickling them raises an error if they have credentials."""

    def __reduce__(self) -> tuple[Any, ...]:
        if isinstance(self.get("credentials"), grpc.ChannelCredentials):
            raise TypeError(
                "a PoolingClient with credentials cannot be pickled, because gRPC's credentials "
                "cannot; create the client in the other process"
            )
        return dict, (list(self.items()),)


def arguments_of(connection: Connection, timeout_s: float) -> dict[str, Any]:
    """Return the arguments of the constructor of a client."""
    fields = dataclasses.fields(connection)
    values = {field.name: getattr(connection, field.name) for field in fields}
    return _Arguments(values, timeout=timeout_s)


def rebuilt(create: Callable[..., Client], arguments: dict[str, Any]) -> Client:
    """Return a new client with these arguments."""
    return create(**arguments)
