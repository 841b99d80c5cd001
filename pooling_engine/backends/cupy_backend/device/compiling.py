"""Compilation of kernels by NVRTC through CuPy, with a cache on disk.

`cupy.RawModule` cannot be used: it always flushes subnormal float32 to zero, which would change
maxima and sums.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from pooling_engine.backends.cupy_backend.device.source import source_of

OPTIONS = ("--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "-default-device")


class CompiledKernel(NamedTuple):
    """A kernel for one architecture.

    Attributes:
        symbol: name in the machine code.
        code: machine code (cubin).
        log: messages of the compiler; empty for a kernel from the cache.
    """

    symbol: str
    code: bytes
    log: str = ""


def load_or_compile(file: str, name: str, architecture: str) -> CompiledKernel:
    """Return a kernel from the cache, or compile it and store it there.

    Args:
        file: source file in `cuda/`.
        name: kernel with its template arguments.
        architecture: architecture such as "sm_90".

    Raises:
        RuntimeError: the kernel does not compile.
    """
    cached = load_cached(file, name, architecture)
    if cached is not None:
        return cached
    kernel, path = compile_kernel(file, name, architecture), _path(file, name, architecture)
    with contextlib.suppress(OSError):  # without a writable cache, each process compiles
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as written:
            written.write(kernel.symbol.encode() + b"\n" + kernel.code)
        os.replace(written.name, path)  # noqa: PTH105  atomic: other processes may compile it too
    return kernel


def load_cached(file: str, name: str, architecture: str) -> CompiledKernel | None:
    """Return a kernel from the cache, or None if it is not there."""
    with contextlib.suppress(OSError):
        symbol, _, code = _path(file, name, architecture).read_bytes().partition(b"\n")
        return CompiledKernel(symbol.decode(), code)
    return None


def compile_kernel(file: str, name: str, architecture: str, *options: str) -> CompiledKernel:
    """Compile a kernel with NVRTC, which needs no GPU.

    Args:
        file: source file in `cuda/`.
        name: kernel with its template arguments.
        architecture: architecture such as "sm_90".
        options: NVRTC options in addition to `OPTIONS`.

    Raises:
        RuntimeError: the kernel does not compile; the text contains the compiler's log.
    """
    from cupy.cuda import nvrtc

    program = nvrtc.createProgram(source_of(file), file, (), ())
    try:
        nvrtc.addNameExpression(program, name)
        try:
            nvrtc.compileProgram(
                program, (*OPTIONS, *options, f"--gpu-architecture={architecture}")
            )
        except nvrtc.NVRTCError as error:
            log = nvrtc.getProgramLog(program)
            raise RuntimeError(f"{name} for {architecture}: {error}\n{log}") from error
        symbol, code = nvrtc.getLoweredName(program, name), nvrtc.getCUBIN(program)
        return CompiledKernel(symbol, code, nvrtc.getProgramLog(program))
    finally:
        nvrtc.destroyProgram(program)


def _path(file: str, name: str, architecture: str) -> Path:
    """Return a path in CuPy's cache folder, by a digest of all that determines the code."""
    from cupy.cuda import nvrtc

    facts = repr((nvrtc.getVersion(), OPTIONS, architecture, name, source_of(file)))
    home = os.path.expanduser("~")  # noqa: PTH111  "~" for a user without a home, as in CuPy
    cache = os.environ.get("CUPY_CACHE_DIR") or Path(home) / ".cupy" / "kernel_cache"
    digest = hashlib.sha256(facts.encode()).hexdigest()
    return Path(cache) / "pooling-service" / f"{digest}.cubin"
