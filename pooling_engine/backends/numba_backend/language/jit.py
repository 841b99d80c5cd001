"""How kernels are compiled, and where the machine code is kept."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

_log = logging.getLogger("pooling_engine")


def _cache_directory() -> str | None:
    """Where compiled kernels are kept: a folder for each state of the sources; None: nowhere.

    Numba looks only at the file of a kernel itself, and would go on using machine code made
    with older versions of what that file imports.
    """
    sources = sorted(Path(__file__).parents[1].rglob("*.py"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    chosen = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    base = Path(chosen) if chosen else Path.home() / ".cache"
    folder = base / "pooling-service" / digest[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return str(folder)
    except OSError as error:
        _log.warning("kernels are compiled anew by every process: %s", error)
        return None


_CACHE = _cache_directory()


def kernel(function: Callable[..., Any]) -> Any:
    """A function that Python calls: compiled without the interpreter lock, kept on disk."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = _CACHE or before
    try:
        return numba.njit(
            nogil=True, cache=_CACHE is not None, error_model="numpy", no_cfunc_wrapper=True
        )(function)
    finally:
        numba.config.CACHE_DIR = before


_INNER = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def part(function: Callable[..., Any]) -> Any:
    """A part of a kernel: its code is put where it is called, so that constants reach it."""
    return numba.njit(forceinline=True, **_INNER)(function)


def routine(function: Callable[..., Any]) -> Any:
    """A part of a kernel that is long or called from several places, with code of its own."""
    # Said outright, because what a part calls is otherwise compiled with the options of the part.
    return numba.njit(forceinline=False, **_INNER)(function)


def section(function: Callable[..., Any]) -> Any:
    """A part that is compiled with its caller, as if its lines stood there.

    Every level of calls is optimised again with all that it calls: fewer levels compile sooner.
    """
    return numba.njit(inline="always", **_INNER)(function)
