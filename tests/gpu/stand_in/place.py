"""Puts `stand_in.cc` where the real CuPy looks for CUDA: a plugin of pytest.

    PYTHONPATH=tests/gpu python -m stand_in.place
    PYTHONPATH=tests/gpu LD_LIBRARY_PATH=build/stand_in python -m pytest -p stand_in.place ...

CuPy loads the driver and NVRTC by name, and finds the stand-in under those names. Its CUDA runtime
is linked into it, so jumps are written over those functions; one without a stand-in ends the
process with a word. That is fair here: what is tested is what we ask of CuPy and how CuPy packs it,
not CUDA. Launches run the shim's kernels. This is no card and measures nothing.
"""

from __future__ import annotations

import ctypes
import platform
import struct
import subprocess
import sys
from pathlib import Path

from pooling_engine.backends.cupy_backend.planning.kernels import all_kernels
from pooling_engine.backends.cupy_backend.planning.launches import BLOCK_THREADS, Launch
from tests.gpu import shim

SOURCE = Path(__file__).with_name("stand_in.cc")
FOLDER = Path(__file__).parents[3] / "build" / "stand_in"
NAMES = ("libcuda.so.1", "libnvrtc.so.12", "libnvrtc.so.13")
READ_WRITE_RUN = 7
PAGE = 4096
FAILED = 719  # cudaErrorLaunchFailure


def build() -> None:
    """Compiles the library under the names that CuPy loads.

    Raises:
        SystemExit: the machine is not x86-64.
    """
    if platform.machine() != "x86_64":
        sys.exit("the stand-in for CUDA writes machine code of x86-64; this is another machine")
    FOLDER.mkdir(parents=True, exist_ok=True)
    library = FOLDER / "stand_in.so"
    command = ["g++", "-std=c++17", "-O1", "-Wall", "-fPIC", "-shared", SOURCE, "-o", library]
    subprocess.run(command, check=True)
    for name in NAMES:
        (FOLDER / name).unlink(missing_ok=True)
        (FOLDER / name).symlink_to(library.name)


def put_in_place() -> ctypes.CDLL:
    """The library, after CuPy has been made to use it."""
    library = ctypes.CDLL(str(FOLDER / "stand_in.so"), mode=ctypes.RTLD_GLOBAL)
    library.stand_in_used.restype = ctypes.c_size_t
    library.stand_in_pinned_copies.restype = ctypes.c_long
    library.stand_in_limit.argtypes = [ctypes.c_size_t]
    library.stand_in_start(_start)
    _load_instead(library)
    _write_jumps(library)
    return library


def _load_instead(library: ctypes.CDLL) -> None:
    """CuPy 14 asks `cuda.pathfinder` for libraries."""
    try:
        from cuda import pathfinder
    except ImportError:
        return

    class Loaded:
        _handle_uint = library._handle
        abs_path = library._name

    pathfinder.load_nvidia_dynamic_lib = lambda name: Loaded()


def _write_jumps(library: ctypes.CDLL) -> None:
    from cupy_backends.cuda.api import runtime

    maps = Path("/proc/self/maps").read_text().splitlines()
    base = next(int(line.split("-")[0], 16) for line in maps if runtime.__file__ in line)
    listed = subprocess.run(["nm", runtime.__file__], capture_output=True, text=True, check=True)
    symbols = [line.split() for line in listed.stdout.splitlines()]
    functions = {
        symbol[2]: base + int(symbol[0], 16)
        for symbol in symbols
        if len(symbol) == 3 and symbol[1] in "tT" and symbol[2].startswith("cuda")
    }
    first, last = min(functions.values()) & -PAGE, max(functions.values()) + PAGE & -PAGE
    protect = ctypes.CDLL(None).mprotect
    protect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    if protect(first, last - first + PAGE, READ_WRITE_RUN):
        raise OSError("the pages of CuPy's code cannot be made writable here")
    for name, address in functions.items():
        function = getattr(library, f"at_{name}", library.stand_in_is_missing)
        target = ctypes.cast(function, ctypes.c_void_p).value
        code = b"\x48\xb8" + struct.pack("<Q", target) + b"\xff\xe0"  # mov rax; jmp rax
        ctypes.memmove(address, code, len(code))


@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint, ctypes.c_void_p)
def _start(file, name, blocks, arguments):
    try:
        launch = Launch(file.decode(), name.decode(), blocks, ())
        if launch.name not in shim._kernels:
            shim.compile_all(Launch(*each, blocks=0, values=()) for each in all_kernels())
        with shim._running:
            ended = shim._kernels[launch.name](blocks, BLOCK_THREADS, ctypes.c_void_p(arguments))
        return 0 if ended else FAILED
    except BaseException as error:  # none may pass through C
        print(f"{file} {name}: {error!r}", file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    build()
else:
    LIBRARY = put_in_place()
