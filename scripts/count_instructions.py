"""Counts what a thread of each common kernel executes, and which unit of the card binds it.

python scripts/count_instructions.py

This is arithmetic, not measurement: the machine code that NVRTC makes for sm_90, the rates that
NVIDIA publishes, and nothing of latencies, of caches that miss, of threads at the edges. "share" is
the part of the memory's speed that the unit which binds leaves. Branches on elements count what
they skip: of a warp, some thread does it. It needs CuPy with NVRTC and `nvdisasm` (on the PATH, or
as the package nvidia-cuda-nvdisasm), and no card.
"""

from __future__ import annotations

import math
import shutil
import site
import struct
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from machine_code import Code, Instruction, Thread

from pooling_engine import PoolSpec
from pooling_engine.backends.cupy_kernels.compiling import compile_anew
from pooling_engine.backends.cupy_kernels.launches import (
    THREADS,
    Launch,
    backward_launch,
    forward_launch,
)

WINDOWS = ((2, 2, 0), (3, 2, 1), (3, 1, 1), (5, 1, 2), (7, 1, 3))
SHAPE = (64, 64, 112, 112)
# What a multiprocessor of compute capability 9.0 does in a clock, by NVIDIA's CUDA C++ Programming
# Guide ("Arithmetic Instructions"): instructions of a thread, of all kinds (four warps); additions
# and products of float64; conversions from float64 or to it; reciprocals and the like; comparisons,
# selections, sums and logic of 32 bits; products of integers, and sums with them. And lines of 128
# bytes of the first-level cache.
RATES = {"issued": 128, "float64": 64, "widths": 16, "special": 16, "integers": 64, "products": 64,
         "cache": 1}  # fmt: skip
BYTES_A_CLOCK = 3.35e12 / (132 * 1.755e9)  # of an H100 SXM, for each of its multiprocessors
ARGUMENTS = 0x210  # where they begin among the constants of sm_90
INTEGERS = {"FMNMX", "FSEL", "FSETP", "IABS", "IADD3", "ISETP", "LEA", "LOP3", "MOV", "P2R"}
INTEGERS |= {"PLOP3", "PRMT", "R2P", "SEL", "SHF", "VIADD", "VIADDMNMX", "VIMNMX"}


def main() -> None:
    """Prints a table, by element that is computed."""
    print(" " * 37 + "".join(f"{unit:>9}" for unit in RATES) + "  share  bound")
    for dtype in (np.dtype(np.float32), np.dtype(np.float16)):
        for window in WINDOWS:
            kernel, stride, _ = window
            for call in _calls(window, dtype):
                _report(f"{dtype.name} {kernel}x{kernel} s{stride} {call.what}", call)


class Call(NamedTuple):
    """A launch, the bytes that must move for it, and the elements that it computes."""

    what: str
    launch: Launch
    moved: int
    results: int


def _calls(window: tuple[int, int, int], dtype: np.dtype[Any]) -> Iterator[Call]:
    for mode in ("max", "average"):
        plan = PoolSpec(mode, *window).plan(SHAPE, dtype)
        cells, outputs = math.prod(plan.input_shape), math.prod(plan.output_shape)
        forward, backward = forward_launch(plan, False, True), backward_launch(plan, True)
        moved, indexed = (cells + outputs) * dtype.itemsize, outputs if plan.selects else 0
        if forward is None or backward is None:
            raise AssertionError("these have kernels")
        yield Call(mode, forward, moved, outputs)
        if plan.selects and (forward := forward_launch(plan, True, True)) is not None:
            yield Call(f"{mode}, indices", forward, moved + indexed, outputs)
        yield Call(f"{mode} gradient", backward, moved + indexed, cells)


def _report(what: str, call: Call) -> None:
    launch, results = call.launch, call.results
    threads = launch.blocks * THREADS
    a_plane = threads // math.prod(SHAPE[:2])
    own = threads // 2 + a_plane // 2 + 5  # at no edge: in the middle row of a plane
    thread = Thread(Code(_disassembled(launch)), _constants(launch), *divmod(own, THREADS))
    work: Counter[str] = Counter()
    for line, is_executed in thread.walk():
        work.update(_work(line, is_executed))
    each = {unit: work[unit] * threads / results for unit in RATES}
    unit = max(RATES, key=lambda unit: each[unit] / RATES[unit])
    share = call.moved / results / BYTES_A_CLOCK / (each[unit] / RATES[unit])
    row = "".join(f"{count:9.1f}" for count in each.values())
    print(f"{what:37}{row}  {min(share, 1):5.2f}  {unit if share < 1 else 'memory'}", flush=True)


def _work(line: Instruction, is_executed: bool) -> dict[str, float]:
    """How much an instruction takes of each unit; of one that only takes its turn, that."""
    kind, *ways = line.name.split(".")
    work: dict[str, float] = {"issued": 1}
    if kind.startswith("U") or not is_executed:
        return work
    if kind in ("DADD", "DMUL", "DFMA", "DSETP"):
        work["float64"] = 1
    elif kind in ("F2F", "I2F", "F2I") and "F64" in ways:
        work["widths"] = 1
    elif kind == "MUFU":
        work["special"] = 1
    elif kind == "IMAD":
        work["products"] = 1
    elif kind in INTEGERS:
        work["integers"] = 1
    elif kind in ("LDG", "STG"):  # of a warp: four lines of 128 bytes, for threads 16 bytes apart
        work["cache"] = 4 / 32
    return work


def _constants(launch: Launch) -> bytes:
    """Bank 0 of the constants: the size of a block, and the arguments."""
    bank = bytearray(struct.pack("<3I", THREADS, 1, 1).ljust(ARGUMENTS, b"\0"))
    is_forward = launch.name.startswith(("select_rows", "select_square_rows"))
    count = 2 if launch.name.startswith("sum") else 4
    for number in range(1, count + 1):  # no place for marks of NaNs
        bank += struct.pack("<Q", 0 if is_forward and number == 4 else number << 32)
    for value in launch.values:
        bank += np.asarray(value).tobytes()
    return bytes(bank)


def _disassembled(launch: Launch) -> str:
    kernel = compile_anew(launch.file, launch.name, "sm_90")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.code + b"\0")  # CuPy leaves the last byte out, as of a text
        file.flush()
        command = (_nvdisasm(), "-c", file.name)
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _nvdisasm() -> str:
    found = shutil.which("nvdisasm")
    packages = (Path(each) for each in site.getsitepackages())
    return found or str(
        next(path for each in packages for path in each.glob("nvidia/*/bin/nvdisasm"))
    )


if __name__ == "__main__":
    main()
