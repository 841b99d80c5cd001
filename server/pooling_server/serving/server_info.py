"""What the server says of itself in GetServerInfo."""

from __future__ import annotations

from pooling_engine.backends import BACKENDS, Backend, available_backends, select_backend
from pooling_server.config import ServerConfig
from pooling_wire import BackendInfo, Limits, ServerInfo


def describe(config: ServerConfig, version: str) -> ServerInfo:
    """What GetServerInfo answers.

    Args:
        config: the limits and the backend.
        version: of the software.
    """
    backends = tuple(
        BackendInfo(
            backend.name,
            backend.devices(),
            backend.modes,
            backend.dtypes,
            backend.index_formats,
        )
        for backend in used_backends(config.backend)
    )
    limits = Limits(**{name: getattr(config, name) for name in Limits.__dataclass_fields__})
    return ServerInfo(version, backends, limits)


def used_backends(name: str) -> tuple[Backend, ...]:
    """The backend of that name, and those that compute what it has no kernels for.

    Each hands on to the next in order of preference; the last has everything.
    """
    chosen, names = select_backend(name), tuple(BACKENDS)
    later = names[names.index(chosen.name) + 1 :]
    return chosen, *(select_backend(other) for other in later if other in available_backends())
