"""Contents of the GetServerInfo reply."""

from __future__ import annotations

from pooling_engine.backends import BACKENDS, Backend, available_backends, select_backend
from pooling_server.config import ServerConfig
from pooling_wire import BackendInfo, Limits, ServerInfo


def describe(config: ServerConfig, version: str) -> ServerInfo:
    """Return the version, the backends and the limits of a server.

    Args:
        config: options of the server.
        version: version of the software.
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
    """Return the selected backend, followed by the backends that it falls back to.

    Each backend passes calls for which it has no kernel to the next one. The last backend supports
    every call.
    """
    chosen, names = select_backend(name), tuple(BACKENDS)
    later = names[names.index(chosen.name) + 1 :]
    return chosen, *(select_backend(other) for other in later if other in available_backends())
