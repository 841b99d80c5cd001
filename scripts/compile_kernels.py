"""Compiles every CUDA kernel that ships with NVRTC, for the architectures named; needs no card.

python scripts/compile_kernels.py sm_80 sm_90

Says the registers of a thread, by kernel, and fails where any of them are spilled to memory.
"""

from __future__ import annotations

import re
import sys
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from cupy.cuda import nvrtc

from pooling_engine.backends.cupy_backend.device.compiling import compile_kernel
from pooling_engine.backends.cupy_backend.planning.kernels import Name, all_kernels

REPORT = "--ptxas-options=--verbose"


def main() -> None:
    """Compiles, a kernel a core, and says how much came of it."""
    names = list(all_kernels())
    version = ".".join(map(str, nvrtc.getVersion()))
    with ProcessPoolExecutor() as pool:
        for architecture in sys.argv[1:] or ("sm_80", "sm_90"):
            start = time.perf_counter()
            size, registers = 0, defaultdict(list)
            compiled = pool.map(partial(_compiled, architecture), names, chunksize=8)
            for name, (nbytes, used) in zip(names, compiled, strict=True):
                size += nbytes
                registers[name[1].partition("<")[0]].append(used)
            seconds = time.perf_counter() - start
            print(
                f"{len(names)} kernels for {architecture} by NVRTC {version}: "
                f"{size >> 10} KiB, {seconds:.0f} s; registers of a thread:"
            )
            for kernel_name, counts in registers.items():
                print(f"  {kernel_name}: {min(counts)} to {max(counts)}", flush=True)


def _compiled(architecture: str, name: Name) -> tuple[int, int]:
    """The bytes of a kernel's machine code, and how many registers it uses."""
    kernel = compile_kernel(*name, architecture, REPORT)
    return len(kernel.code), _registers(name, kernel.log)


def _registers(name: Name, log: str) -> int:
    """How many a kernel uses.

    Raises:
        SystemExit: it has more than fit, or a stack.
    """
    used = re.search(r"Used (\d+) registers", log)
    stacks = re.findall(r"(\d+) bytes (?:stack frame|spill)", log)
    if used is None or any(map(int, stacks)):
        raise SystemExit(f"{name[1]} is not in registers alone:\n{log}")
    return int(used[1])


if __name__ == "__main__":
    main()
