"""Byte-bounded memoisation of per-plan tables."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

import numpy as np

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value", bound=tuple[Any, ...])

MAX_BYTES = 64 << 20  # of the arrays in the values of one function
MAX_ENTRIES = 256


class Memo(Generic[Key, Value]):
    """Function with a cache of its latest values, bounded in bytes. Thread-safe.

    A table has an entry for every output along an axis: tables of long rows take more memory than
    the rows, so a limit on their number is not enough. The oldest values are removed first. A
    look-up takes no lock, because every small call makes one.

    Args:
        function: returns a tuple of arrays and other items; the arrays must not be written to.
    """

    def __init__(self, function: Callable[[Key], Value]) -> None:
        self._function = function
        self._values: dict[Key, Value] = {}
        self._bytes = 0
        self._lock = threading.Lock()
        self.__doc__ = function.__doc__

    def __call__(self, key: Key) -> Value:
        """Return the value for a key, from the cache or computed."""
        value = self._values.get(key)
        return self._compute(key) if value is None else value

    def cache_clear(self) -> None:
        """Remove all values."""
        with self._lock:
            self._values.clear()
            self._bytes = 0

    def _compute(self, key: Key) -> Value:
        value = self._function(key)
        size = _nbytes(value)
        with self._lock:
            if size <= MAX_BYTES and key not in self._values:
                self._values[key] = value
                self._bytes += size
                while self._bytes > MAX_BYTES or len(self._values) > MAX_ENTRIES:
                    oldest = next(iter(self._values))
                    self._bytes -= _nbytes(self._values.pop(oldest))
        return value


def _nbytes(value: Any) -> int:
    """Return the size of all arrays in a value, and in tuples within it."""
    if isinstance(value, tuple):
        return sum(map(_nbytes, value))
    return value.nbytes if isinstance(value, np.ndarray) else 0
