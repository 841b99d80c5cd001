"""Compile every CUDA kernel with NVRTC, for the given architectures. Needs CuPy but no GPU.

    python scripts/gpu/compile_kernels.py sm_80 sm_90

Prints the registers per thread of each kernel. Fails if a kernel spills registers to memory, or if
CuPy lacks a name that the backend uses.
"""

from __future__ import annotations

import re
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial, reduce
from pathlib import Path

import cupy
from cupy.cuda import nvrtc

from pooling_engine.backends import cupy_backend
from pooling_engine.backends.cupy_backend.device.compiling import compile_kernel
from pooling_engine.backends.cupy_backend.planning.kernels import Name, all_kernels

REPORT = "--ptxas-options=--verbose"
MODULES = {"cupy": cupy, "_runtime": cupy.cuda.runtime, "nvrtc": nvrtc}
CUPY_NAME = re.compile(r"\b(cupy|_runtime|nvrtc)\.((?:\w+\.)*\w+)")


def main() -> None:
    """Compile all kernels on all cores, and print their sizes and registers."""
    for module, name in cupy_names():
        reduce(getattr, name.split("."), MODULES[module])  # AttributeError if CuPy lacks the name
    names = list(all_kernels())
    version = ".".join(map(str, nvrtc.getVersion()))
    with ProcessPoolExecutor() as pool:
        for architecture in sys.argv[1:] or ("sm_80", "sm_90"):
            start = time.perf_counter()
            size, registers = 0, defaultdict(list)
            compiled = pool.map(partial(size_and_registers, architecture), names, chunksize=8)
            for (_, name), (nbytes, used) in zip(names, compiled, strict=True):
                size += nbytes
                registers[name.partition("<")[0]].append(used)
            seconds = time.perf_counter() - start
            print(
                f"{len(names)} kernels for {architecture} by NVRTC {version}: "
                f"{size >> 10} KiB, {seconds:.0f} s; registers per thread:"
            )
            for kernel, counts in registers.items():
                print(f"  {kernel}: {min(counts)} to {max(counts)}", flush=True)


def cupy_names() -> Iterator[tuple[str, str]]:
    """Yield the names of CuPy that the backend uses, such as ("_runtime", "memcpyAsync")."""
    for path in Path(*cupy_backend.__path__).rglob("*.py"):
        yield from CUPY_NAME.findall(path.read_text())


def size_and_registers(architecture: str, name: Name) -> tuple[int, int]:
    """Return the bytes of a kernel's machine code and its registers per thread."""
    kernel = compile_kernel(*name, architecture, REPORT)
    return len(kernel.code), registers_of(name, kernel.log)


def registers_of(name: Name, log: str) -> int:
    """Return the registers per thread of a kernel.

    Raises:
        SystemExit: the kernel has a stack or spills registers.
    """
    used = re.search(r"Used (\d+) registers", log)
    stacks = re.findall(r"(\d+) bytes (?:stack frame|spill)", log)
    if used is None or any(map(int, stacks)):
        raise SystemExit(f"{name[1]} uses memory beside its registers:\n{log}")
    return int(used[1])


if __name__ == "__main__":
    main()
