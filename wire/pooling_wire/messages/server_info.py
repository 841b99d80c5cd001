"""Server information: version, backends and limits, encoded and decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from pooling_engine import IndexFormat, Mode, PoolingError
from pooling_wire.enums import INDEX_FORMATS, MODES, element_dtype, element_type_number
from pooling_wire.v1 import pooling_pb2 as pb

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """A compute backend of a server: its devices, modes, element types and index formats.

    Values that this client does not know are left out: those of a newer server, and bfloat16
    without ml_dtypes.
    """

    name: str
    devices: tuple[str, ...]
    modes: tuple[Mode, ...]
    dtypes: tuple[np.dtype[Any], ...]
    index_formats: tuple[IndexFormat, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a server; sizes are in bytes, times in seconds.

    Zero means that there is no limit, or that the server does not report it.
    """

    max_message_bytes: int
    max_tensor_bytes: int
    max_taps: int
    max_in_flight: int
    max_in_flight_bytes: int = 0
    max_connection_streams: int = 0
    max_connection_age_s: float = 0.0
    max_connection_idle_s: float = 0.0
    stream_idle_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Version, backends (the default first) and limits of a server."""

    version: str
    backends: tuple[BackendInfo, ...]
    limits: Limits


def encode_server_info(info: ServerInfo) -> bytes:
    """Return the bytes of a GetServerInfoResponse."""
    response = pb.GetServerInfoResponse(version=info.version)
    for backend in info.backends:
        response.backends.add(
            name=backend.name,
            devices=backend.devices,
            modes=[MODES.number(mode) for mode in backend.modes],
            element_types=[element_type_number(dtype) for dtype in backend.dtypes],
            index_formats=[INDEX_FORMATS.number(format_) for format_ in backend.index_formats],
        )
    for name in Limits.__dataclass_fields__:
        setattr(response.limits, name, getattr(info.limits, name))
    return response.SerializeToString()


def decode_server_info(data: bytes) -> ServerInfo:
    """Return the server information in a GetServerInfoResponse."""
    response = pb.GetServerInfoResponse.FromString(data)
    backends = tuple(
        BackendInfo(
            name=backend.name,
            devices=tuple(backend.devices),
            modes=_known(MODES.name, backend.modes),
            dtypes=_known(element_dtype, backend.element_types),
            index_formats=_known(INDEX_FORMATS.name, backend.index_formats),
        )
        for backend in response.backends
    )
    limits = Limits(
        **{name: getattr(response.limits, name) for name in Limits.__dataclass_fields__}
    )
    return ServerInfo(response.version, backends, limits)


def _known(name_of: Callable[[int, str], T], numbers: Iterable[int]) -> tuple[T, ...]:
    """Return the names of the numbers that have one."""
    names = []
    for number in numbers:
        with suppress(PoolingError):
            names.append(name_of(number, ""))
    return tuple(names)
