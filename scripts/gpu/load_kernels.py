"""Compile every kernel for the GPU of this machine, on all cores, and load each once.

The compiled kernels stay in CuPy's cache folder (CUPY_CACHE_DIR) for later steps.
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
from pooling_engine.runtime import usable_cores


def compiled_size(architecture: str, name: Name) -> int:
    """Compile a kernel, or find it in the cache; return the bytes of its machine code."""
    return len(load_or_compile(*name, architecture).code)


def compile_all(architecture: str) -> None:
    """Compile every kernel, or find it in the cache."""
    names, start = list(all_kernels()), time.monotonic()
    spawn = multiprocessing.get_context("spawn")  # a process that uses CUDA must not be forked
    with ProcessPoolExecutor(usable_cores(), spawn) as pool:
        sizes = pool.map(functools.partial(compiled_size, architecture), names, chunksize=16)
        size = sum(sizes)
    seconds = time.monotonic() - start
    print(f"{len(names)} kernels for {architecture}: {size >> 10} KiB, {seconds:.0f} s", flush=True)


def load_all() -> None:
    """Load every kernel into the current device."""
    device, start = CupyDevice(), time.monotonic()
    names = list(all_kernels())
    for name in names:
        device.kernel(Launch(*name, blocks=0, values=()))
    print(f"{len(names)} kernels loaded: {time.monotonic() - start:.1f} s", flush=True)


if __name__ == "__main__":
    import cupy

    compile_all(f"sm_{cupy.cuda.Device().compute_capability}")
    load_all()
