"""Kernels compiled by NVRTC, through CuPy, and kept on disk.

Not by `cupy.RawModule`: that always has denormal float32 flushed to zero, which would be another
maximum and another sum than everywhere else.
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


class Compiled(NamedTuple):
    """A kernel for one architecture.

    Attributes:
        symbol: its name in the machine code.
        code: the machine code.
        log: what the compiler said; nothing, where the kernel was on disk.
    """

    symbol: str
    code: bytes
    log: str = ""


def compiled(file: str, name: str, architecture: str) -> Compiled:
    """A kernel from disk, or compiled and put there.

    Args:
        file: its source, in `pooling_engine/backends/cupy_backend/cuda/`.
        name: the kernel with its template arguments.
        architecture: as in "sm_90".
    """
    found = on_disk(file, name, architecture)
    if found is not None:
        return found
    kernel, path = compile_anew(file, name, architecture), _path(file, name, architecture)
    with contextlib.suppress(OSError):  # a disk that takes nothing only costs time
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as written:
            written.write(kernel.symbol.encode() + b"\n" + kernel.code)
        os.replace(written.name, path)  # noqa: PTH105  in one step, whoever else compiles it
    return kernel


def on_disk(file: str, name: str, architecture: str) -> Compiled | None:
    """A kernel from disk; None if it is not there."""
    with contextlib.suppress(OSError):
        symbol, _, code = _path(file, name, architecture).read_bytes().partition(b"\n")
        return Compiled(symbol.decode(), code)
    return None


def compile_anew(file: str, name: str, architecture: str, *options: str) -> Compiled:
    """A kernel compiled by NVRTC, which needs no card.

    Args:
        options: of NVRTC, beside those that ours always have.

    Raises:
        RuntimeError: it does not compile; the text says why.
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
        return Compiled(symbol, code, nvrtc.getProgramLog(program))
    finally:
        nvrtc.destroyProgram(program)


def _path(file: str, name: str, architecture: str) -> Path:
    """Where a kernel is kept: where CuPy keeps its own, under all that it depends on."""
    from cupy.cuda import nvrtc

    facts = repr((nvrtc.getVersion(), OPTIONS, architecture, name, source_of(file)))
    home = os.path.expanduser("~")  # noqa: PTH111  of a user who has none, "~", as CuPy takes it
    kept = os.environ.get("CUPY_CACHE_DIR") or Path(home) / ".cupy" / "kernel_cache"
    digest = hashlib.sha256(facts.encode()).hexdigest()
    return Path(kept) / "pooling-service" / f"{digest}.cubin"
