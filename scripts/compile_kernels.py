"""Compiles every CUDA kernel that ships with NVRTC, for the architectures named; needs no card.

python scripts/compile_kernels.py sm_80 sm_90
"""

from __future__ import annotations

import sys
import time

from cupy.cuda import nvrtc

from pooling_engine.backends.cupy_kernels.compiling import compile_anew
from pooling_engine.backends.cupy_kernels.names import all_names


def main() -> None:
    """Compiles, and says how much came of it."""
    names = list(all_names())
    version = ".".join(map(str, nvrtc.getVersion()))
    for architecture in sys.argv[1:] or ("sm_80", "sm_90"):
        start = time.perf_counter()
        size = sum(len(compile_anew(*name, architecture).code) for name in names)
        seconds = time.perf_counter() - start
        print(
            f"{len(names)} kernels for {architecture} by NVRTC {version}: "
            f"{size >> 10} KiB, {seconds:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
