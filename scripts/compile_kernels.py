"""Compiles every CUDA kernel that ships with NVRTC, for the architectures named; needs no card.

python scripts/compile_kernels.py sm_80 sm_90

Says the registers of a thread, by kernel, and fails where any of them are spilled to memory.
"""

from __future__ import annotations

import re
import sys
import time
from collections import defaultdict

from cupy.cuda import nvrtc

from pooling_engine.backends.cupy_kernels.compiling import compile_anew
from pooling_engine.backends.cupy_kernels.names import Name, all_names

REPORT = "--ptxas-options=--verbose"


def main() -> None:
    """Compiles, and says how much came of it."""
    names = list(all_names())
    version = ".".join(map(str, nvrtc.getVersion()))
    for architecture in sys.argv[1:] or ("sm_80", "sm_90"):
        start = time.perf_counter()
        size, registers = 0, defaultdict(list)
        for name in names:
            kernel = compile_anew(*name, architecture, REPORT)
            size += len(kernel.code)
            registers[name[1].partition("<")[0]].append(_registers(name, kernel.log))
        seconds = time.perf_counter() - start
        print(
            f"{len(names)} kernels for {architecture} by NVRTC {version}: "
            f"{size >> 10} KiB, {seconds:.0f} s; registers of a thread:"
        )
        for kernel_name, used in registers.items():
            print(f"  {kernel_name}: {min(used)} to {max(used)}", flush=True)


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
