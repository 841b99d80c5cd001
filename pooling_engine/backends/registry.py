"""The list of backends, and their selection by name."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from pooling_engine.backends.protocols import Backend
from pooling_engine.errors import InvalidSpecError

# In order of preference; the only list of backends.
BACKENDS: dict[str, str] = {
    "cupy": "pooling_engine.backends.cupy_backend.backend",
    "numba": "pooling_engine.backends.numba_backend.backend",
    "numpy": "pooling_engine.backends.numpy_backend.backend",
}

_loaded: dict[str, Backend] = {}
_failed: dict[str, ImportError] = {}

_log = logging.getLogger("pooling_engine")


def select_backend(name: str = "auto") -> Backend:
    """Return the backend of that name; for "auto", the first that loads.

    Raises:
        InvalidSpecError: there is no backend of that name, or it cannot be loaded.
    """
    if name in _loaded:
        return _loaded[name]
    if name == "auto":
        _loaded[name] = select_backend(available_backends()[0])
        return _loaded[name]
    if name not in BACKENDS:
        legal = ", ".join(f'"{known}"' for known in ("auto", *BACKENDS))
        raise InvalidSpecError(f"backend is {name!r}; it must be one of {legal}", field="backend")
    try:
        return _load(name)
    except ImportError as error:
        legal = ", ".join(f'"{known}"' for known in ("auto", *available_backends()))
        raise InvalidSpecError(
            f'backend "{name}" cannot be loaded: {error}; available here: {legal}', field="backend"
        ) from error


def available_backends() -> tuple[str, ...]:
    """Return the names of the backends that load, in order of preference.

    A backend that is installed but does not work is left out, and logged once.
    """
    return tuple(name for name in BACKENDS if _is_available(name))


@contextmanager
def override(name: str, backend: Backend | None) -> Iterator[None]:
    """Replace a backend within a block; meant for tests.

    Args:
        name: a name of `BACKENDS`, or "auto".
        backend: the backend that `select_backend(name)` returns within the block; None loads the
            backend again when it is first selected.
    """
    before = [(table, table.pop(name, None)) for table in (_loaded, _failed)]
    if backend is not None:
        _loaded[name] = backend
    try:
        yield
    finally:
        for table, entry in before:
            table.pop(name, None)
            if entry is not None:
                table[name] = entry  # type: ignore[assignment]


def _is_available(name: str) -> bool:
    try:
        _load(name)
    except ImportError:
        return False
    return True


def _load(name: str) -> Backend:
    """Return the backend, loaded once; a failure is final for this process.

    Raises:
        ImportError: a library that it needs is not installed, or its device does not respond.
    """
    if name in _failed:
        raise _failed[name]
    if name not in _loaded:
        try:
            _loaded[name] = importlib.import_module(BACKENDS[name]).load()
        except ImportError as error:
            _failed[name] = error
            if not isinstance(error, ModuleNotFoundError):
                _log.warning('backend "%s" is not available: %s', name, error)
            raise
    return _loaded[name]
