"""What a server says of itself."""

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
    """One way in which a server computes: its devices, modes, types and index formats.

    Of what a server says, that is left out which has no name here: bfloat16 without ml_dtypes, or
    what a newer server has.
    """

    name: str
    devices: tuple[str, ...]
    modes: tuple[Mode, ...]
    dtypes: tuple[np.dtype[Any], ...]
    index_formats: tuple[IndexFormat, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server refuses to exceed; sizes in bytes."""

    max_message_bytes: int
    max_tensor_bytes: int
    max_taps: int
    max_in_flight: int


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """A server: its version, its backends (the default first) and its limits."""

    version: str
    backends: tuple[BackendInfo, ...]
    limits: Limits


def encode_server_info(info: ServerInfo) -> bytes:
    """The bytes of a GetServerInfoResponse."""
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
    """The server in a GetServerInfoResponse."""
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
    """The names of those numbers that have one."""
    names = []
    for number in numbers:
        with suppress(PoolingError):
            names.append(name_of(number, ""))
    return tuple(names)
