"""The backends: what one is, which there are, and how one is chosen."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pooling_engine.errors import InvalidSpecError
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import IndexFormat, Mode

Array = NDArray[Any]


class Backend(Protocol):
    """Computes plans on arrays of its own kind. It reads plans and validates nothing.

    Attributes:
        name: what users call it.
        modes: the modes it computes.
        dtypes: the element types it takes, forward and backward.
        index_formats: the formats in which it gives and takes indices.
    """

    name: str
    modes: tuple[Mode, ...]
    dtypes: tuple[np.dtype[Any], ...]
    index_formats: tuple[IndexFormat, ...]

    def warm_up(self, *, background: bool) -> None:
        """Gets ready for the most common calls; `background` calls wait for nothing after that."""
        ...

    def devices(self) -> tuple[str, ...]:
        """The devices it computes on, in words."""
        ...

    def limit_memory(self, nbytes: int) -> None:
        """Bounds the memory that it takes of a device; nothing, where it computes on the host."""
        ...

    def probe(self) -> None:
        """Asks its device something of known answer; nothing, where it computes on the host.

        Raises:
            DeviceMemoryError: there is no room to ask.
            Exception: whatever else, the device is of no use to this process any more.
        """
        ...

    def pin(self, memory: Array) -> Callable[[], None] | None:
        """Lets a device reach memory of the host by itself: arrays in it need no copy on the way.

        Args:
            memory: all of it, as an array that holds it.

        Returns:
            What ends that. It holds the memory until it is called, which is to be once, when no
            call uses the memory any more. None where there is nothing to end: it computes on the
            host, or the memory cannot be pinned, as the log says then; arrays in it are like any.
        """
        ...

    def forward(self, plan: PoolPlan, x: Array, output: Array, indices: Array | None) -> None:
        """Pools `x` into `output` and, if given, the selected window indices into `indices`."""
        ...

    def backward(
        self, plan: PoolPlan, dy: Array, indices: Array | None, x: Array | None, dx: Array
    ) -> None:
        """Computes the gradient of the input into `dx`; MAX and MIN get indices, LP gets `x`.

        Raises:
            InvalidTensorError: an index names no tap on an element of its window; what `dx` holds
                then is left open.
        """
        ...


# In order of preference; the only list of backends there is.
BACKENDS: dict[str, str] = {
    "cupy": "pooling_engine.backends.cupy_backend.backend",
    "numba": "pooling_engine.backends.numba_backend.backend",
    "numpy": "pooling_engine.backends.numpy_backend.backend",
}

_loaded: dict[str, Backend] = {}
_refused: dict[str, ImportError] = {}

_log = logging.getLogger("pooling_engine")


def select_backend(name: str = "auto") -> Backend:
    """The backend of that name, or for "auto" the first that loads.

    Raises:
        InvalidSpecError: there is no backend of that name, or what it needs is not there.
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
            f'backend "{name}" cannot be loaded: {error}; here it may be {legal}', field="backend"
        ) from error


def available_backends() -> tuple[str, ...]:
    """The names of the backends that load here, in order of preference.

    What is installed and does not work is passed over; the log says so, once.
    """
    return tuple(name for name in BACKENDS if _is_available(name))


def _is_available(name: str) -> bool:
    try:
        _load(name)
    except ImportError:
        return False
    return True


def _load(name: str) -> Backend:
    """The backend, loaded once, or refused for as long as the process lives.

    Raises:
        ImportError: what it needs is not installed, or does not answer.
    """
    if name in _refused:
        raise _refused[name]
    if name not in _loaded:
        try:
            _loaded[name] = importlib.import_module(BACKENDS[name]).load()
        except ImportError as error:
            _refused[name] = error
            if not isinstance(error, ModuleNotFoundError):
                _log.warning('no backend "%s": %s', name, error)
            raise
    return _loaded[name]
