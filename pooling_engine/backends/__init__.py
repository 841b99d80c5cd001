"""Backends: protocols, list, selection by name."""

from pooling_engine.backends.protocols import Backend, DeviceBackend
from pooling_engine.backends.registry import (
    BACKENDS,
    available_backends,
    override,
    select_backend,
)

__all__ = [
    "BACKENDS",
    "Backend",
    "DeviceBackend",
    "available_backends",
    "override",
    "select_backend",
]
