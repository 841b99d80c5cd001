"""Compiles every kernel that ships for the card that is there, on all cores, and loads each once.

What is compiled is kept where CuPy keeps its own (CUPY_CACHE_DIR), for all that runs later.
"""

from __future__ import annotations

import functools
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

from pooling_engine.backends.cupy_backend.device.compiling import load_or_compile
from pooling_engine.backends.cupy_backend.device.cupy_device import CupyDevice
from pooling_engine.backends.cupy_backend.planning.kernels import Name, all_kernels
from pooling_engine.backends.cupy_backend.planning.launches import Launch
from pooling_engine.runtime.cores import usable_cores


def compile_for(architecture: str, name: Name) -> int:
    """Bytes of the machine code of a kernel."""
    return len(load_or_compile(*name, architecture).code)


def compile_all(architecture: str) -> None:
    """Compiles every kernel, or finds it on disk."""
    names, start = list(all_kernels()), time.monotonic()
    fresh = multiprocessing.get_context("spawn")  # a card is no friend of forks
    with ProcessPoolExecutor(usable_cores(), fresh) as pool:
        sizes = pool.map(functools.partial(compile_for, architecture), names, chunksize=16)
        size = sum(sizes)
    seconds = time.monotonic() - start
    print(f"{len(names)} kernels for {architecture}: {size >> 10} KiB, {seconds:.0f} s", flush=True)


def load_all() -> None:
    """Loads every kernel into the current device."""
    device, start = CupyDevice(), time.monotonic()
    names = list(all_kernels())
    for name in names:
        device.kernel(Launch(*name, blocks=0, values=()))
    print(f"{len(names)} kernels loaded: {time.monotonic() - start:.1f} s", flush=True)


if __name__ == "__main__":
    import cupy

    compile_all(f"sm_{cupy.cuda.Device().compute_capability}")
    load_all()
