"""Decorators of compiled functions, and the folder that caches their machine code."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.extending import overload

Function = TypeVar("Function", bound=Callable[..., Any])

_log = logging.getLogger("pooling_engine")
_BACKEND = Path(__file__).parents[1]
_COMPILED = ("language/*.py", "forward/*.py", "backward/*.py", "../rules.py")


def _cache_directory() -> str | None:
    """Return the folder for machine code of the present sources, or None if none is writable.

    Numba compares only the file of a kernel itself with the cached code, and would reuse code that
    was compiled with older versions of what that file imports. The folder's name therefore
    contains a digest of all that kernels import.
    """
    sources = sorted(path for pattern in _COMPILED for path in _BACKEND.glob(pattern))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    chosen = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    try:
        base = Path(chosen) if chosen else Path.home() / ".cache"
        folder = base / "pooling-service" / digest[:16]
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return str(folder)
    except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home directory
        _log.warning("compiled kernels cannot be cached, so every process compiles: %s", error)
        return None


_CACHE = _cache_directory()


def kernel(function: Function) -> Function:
    """Compile a function that Python calls: without the interpreter lock, cached on disk."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = _CACHE or before
    try:
        return numba.njit(
            nogil=True, cache=_CACHE is not None, error_model="numpy", no_cfunc_wrapper=True
        )(function)
    finally:
        numba.config.CACHE_DIR = before


_INNER = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def part(function: Function) -> Function:
    """Compile a function whose machine code is inlined into its callers.

    Constant arguments reach it, so that loops over a constant number of taps are unrolled.
    """
    return numba.njit(forceinline=True, **_INNER)(function)


def routine(function: Function) -> Function:
    """Compile a function with machine code of its own: it is long, or has several callers."""
    # Explicit, because a function that a `part` calls otherwise inherits the options of the part.
    return numba.njit(forceinline=False, **_INNER)(function)


def section(function: Function) -> Function:
    """Compile a function together with its caller, as if its lines stood there.

    LLVM optimises every level of calls again, with all that it calls: fewer levels compile faster.
    """
    return numba.njit(inline="always", **_INNER)(function)


# Decorates a function of *types* that returns the code of a function for those types.
implements: Any = partial(overload, inline="always", strict=False)
