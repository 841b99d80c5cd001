"""Kernels of the CuPy backend on the host, compiled by g++ behind `cuda_shim.h`.

The launches are those that CuPy gets: the same sources, names, grids and arguments.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import subprocess
from collections.abc import Iterable, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pooling_engine.backends.cupy_backend.device.source import source_of
from pooling_engine.backends.cupy_backend.planning.launches import BLOCK_THREADS, Launch

HEADER = Path(__file__).parent / "cuda_shim.h"
# End the process at an error that a GPU would report as a fault or not at all: misaligned packs,
# indices out of range, overflowing positions.
CHECKS = ("-fsanitize=alignment,bounds,signed-integer-overflow,shift", "-fno-sanitize-recover")
COMPILER = ("g++", "-std=c++17", "-O0", "-ffp-contract=off", *CHECKS, "-fPIC", "-shared", "-w")
KERNELS_PER_LIBRARY = 150
CACHE = Path(__file__).parents[3] / "build" / "shim"

_running = Lock()  # the header has one set of threads per process
_kernels: dict[str, Any] = {}


def compile_all(launches: Iterable[Launch]) -> None:
    """Compile kernels that are not loaded yet, several of one file at once."""
    by_file: dict[str, set[str]] = {}
    for launch in launches:
        if launch.name not in _kernels:
            by_file.setdefault(launch.file, set()).add(launch.name)
    parts = [(file, part) for file, names in by_file.items() for part in _parts(sorted(names))]
    with ThreadPool(os.cpu_count()) as pool:
        pool.starmap(_load, parts)


def _parts(names: list[str]) -> list[list[str]]:
    count = KERNELS_PER_LIBRARY
    return [names[first : first + count] for first in range(0, len(names), count)]


def run(launch: Launch, *arrays: NDArray[Any] | None) -> None:
    """Launch a kernel on NumPy arrays; None is a null pointer.

    Raises:
        AssertionError: some threads of a block wait at a barrier that others never reach.
    """
    pointers = [np.uintp(0 if array is None else array.ctypes.data) for array in arrays]
    start(launch, [*pointers, *launch.values])


def start(launch: Launch, values: Sequence[Any]) -> None:
    """Launch a kernel with all its arguments, pointers as numbers.

    Raises:
        AssertionError: see `run`.
    """
    if launch.name not in _kernels:
        compile_all([launch])
    values = [np.ascontiguousarray(value) for value in values]
    arguments = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
    with _running:
        has_ended = _kernels[launch.name](launch.blocks, BLOCK_THREADS, arguments)
    assert has_ended, "some threads wait at a barrier that others never reach"


def _load(file: str, names: Sequence[str]) -> None:
    has_barriers = "true" if "__syncthreads" in source_of(file) else "false"
    launchers = "".join(
        f'extern "C" bool launch_{number}(unsigned blocks, unsigned threads, void **arguments) {{\n'
        f"  return shim::launch<{name}>(blocks, threads, {has_barriers}, arguments);\n}}\n"
        for number, name in enumerate(names)
    )
    text = HEADER.read_text() + source_of(file) + launchers
    library = ctypes.CDLL(str(_compiled(text)))
    for number, name in enumerate(names):
        function = getattr(library, f"launch_{number}")
        function.restype = ctypes.c_bool
        _kernels[name] = function


def _compiled(text: str) -> Path:
    """Return the shared library of a source, compiled once for all processes and test runs."""
    digest = hashlib.sha256((" ".join(COMPILER) + text).encode()).hexdigest()[:32]
    path = CACHE / f"{digest}.so"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # other processes may compile the same source
            if not path.exists():
                built = path.with_suffix(".built")
                command = [*COMPILER, "-x", "c++", "-", "-o", built]
                subprocess.run(command, input=text.encode(), check=True)
                built.rename(path)
    return path
