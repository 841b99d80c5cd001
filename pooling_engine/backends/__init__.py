"""The backends: what one is, which there are, and how one is chosen."""

from __future__ import annotations

import importlib
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pooling_engine.enums import IndexFormat, Mode
from pooling_engine.errors import InvalidSpecError
from pooling_engine.plan import PoolPlan

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

    def devices(self) -> tuple[str, ...]:
        """The devices it computes on, in words."""
        ...

    def forward(self, plan: PoolPlan, x: Array, output: Array, indices: Array | None) -> None:
        """Pools `x` into `output` and, if given, the selected window indices into `indices`."""
        ...

    def backward(
        self, plan: PoolPlan, dy: Array, indices: Array | None, x: Array | None, dx: Array
    ) -> None:
        """Computes the gradient of the input into `dx`; MAX and MIN get indices, LP gets `x`."""
        ...


# In order of preference; the only list of backends there is.
BACKENDS: dict[str, str] = {"numpy": "pooling_engine.backends.numpy_backend"}

_loaded: dict[str, Backend] = {}


def select_backend(name: str = "auto") -> Backend:
    """The backend of that name, or for "auto" the first that loads.

    Raises:
        InvalidSpecError: there is no backend of that name.
    """
    if name == "auto":
        name = next(iter(BACKENDS))
    if name not in BACKENDS:
        legal = ", ".join(f'"{known}"' for known in ("auto", *BACKENDS))
        raise InvalidSpecError(f"backend is {name!r}; it must be one of {legal}", field="backend")
    if name not in _loaded:
        _loaded[name] = importlib.import_module(BACKENDS[name]).load()
    return _loaded[name]
