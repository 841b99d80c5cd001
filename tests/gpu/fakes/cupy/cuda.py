"""Fake `cupy.cuda`: devices, streams, memory and kernels, with faults that tests request."""

from __future__ import annotations

import ctypes
import itertools
import os
import random
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pooling_engine.backends.cupy_backend.planning.launches import Launch
from tests.gpu import shim

Array = NDArray[Any]
GARBAGE, HANG = 0xA5, "hang"
INSUFFICIENT_DRIVER, INVALID_VALUE, ALREADY_REGISTERED, NOT_REGISTERED = 35, 1, 712, 713
UPLOAD, DOWNLOAD = 1, 2  # cudaMemcpyKind
# Types of kernel arguments that CuPy accepts, beside its own arrays and arrays of one element.
SCALARS = {np.dtype(code).type for code in "?bhilqBHILQefdFD"} | {int, float, bool}

EVENTS: list[tuple[int, str]] = []  # (stream, "upload", "launch", "download" or "wait")
STREAMS: weakref.WeakSet[Stream] = weakref.WeakSet()
_streams: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()
CHANCE: random.Random | None = None  # for tests of one thread: work runs at random times
_numbers = itertools.count()
_pinned: dict[int, int] = {}  # begin: end
UNDER_WAY: dict[int, tuple[int, int]] = {}  # host memory of unfinished copies: (begin, end)
REGISTERED: list[tuple[str, int, int]] = []  # ("pin" or "unpin", address, bytes)
_sticky: list[int | str] = []  # status of a lost device


class CUDARuntimeError(RuntimeError):
    def __init__(self, status: int | str) -> None:
        self.status = status
        super().__init__(f"cudaError{status}: requested by the test")


class CUDADriverError(RuntimeError):
    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(f"CUDA_ERROR_{status}: requested by the test")


class OutOfMemoryError(MemoryError):
    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,}).")


def fault() -> str:
    try:
        return Path(os.environ.get("FAKE_CUPY_FAULT", "/no/such/file")).read_text()
    except FileNotFoundError:  # another process may have removed it
        return ""


def _check() -> None:
    wrong = fault()
    if not _sticky and (wrong.isdigit() or wrong == HANG):
        with suppress(FileNotFoundError):  # only the first of several processes takes it
            Path(os.environ["FAKE_CUPY_FAULT"]).unlink()
            _sticky.append(wrong if wrong == HANG else int(wrong))
    if _sticky and HANG not in _sticky:
        raise CUDARuntimeError(_sticky[0])


def _hang() -> None:
    while HANG in _sticky:
        time.sleep(1)


class Device:
    """A device; without a number, the current one of the thread, which is 0 by default."""

    compute_capability = "90"
    _current = threading.local()

    def __init__(self, number: int | None = None) -> None:
        self.id = getattr(self._current, "id", 0) if number is None else number
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
        self.pci_bus_id = f"0000:{int(visible):02X}:00.0"

    def __enter__(self) -> Device:
        self._outer = Device().id
        self._current.id = self.id
        return self

    def __exit__(self, *_: object) -> None:
        self._current.id = self._outer


class Stream:
    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        self._work: list[Callable[[], None]] = []
        self._order = threading.RLock()
        self.number = self.ptr = next(_numbers)
        STREAMS.add(self)
        _streams[self.ptr] = self
        self.device = 0 if null else Device().id

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def put(self, what: str, work: Callable[[], None]) -> None:
        _check()
        EVENTS.append((self.number, what))
        self._work.append(work)
        if CHANCE is not None:
            for stream in [self, *CHANCE.sample(list(STREAMS), len(STREAMS))]:
                stream.finish(CHANCE.randrange(3))

    def synchronize(self) -> None:
        _check()
        _hang()
        EVENTS.append((self.number, "wait"))
        self.finish()

    def finish(self, most: int = 1 << 30) -> None:
        with self._order:  # also waits while another thread runs earlier work
            while self._work and most:
                self._work.pop(0)()
                most -= 1


NULL = Stream(null=True)


def get_current_stream() -> Stream:
    return NULL


class Memory:
    """Memory pool: freed memory stays in the pool until its blocks are freed."""

    def __init__(self) -> None:
        self.limit, self.used, self.cached = 0, 0, 0
        self.lock = threading.RLock()
        self.blocks: weakref.WeakValueDictionary[int, Array] = weakref.WeakValueDictionary()
        self.total = int(os.environ.get("FAKE_CUPY_BYTES", 1 << 30))

    def set_limit(self, size: int = 0, fraction: float | None = None) -> None:
        self.limit = size

    def get_limit(self) -> int:
        return self.limit

    def free_all_blocks(self, stream: Stream | None = None) -> None:
        NULL.finish()  # as cudaFree does
        self.cached = 0

    def take(self, size: int) -> Array:
        _check()
        room = min(self.limit or self.total, self.total)
        with self.lock:
            if fault() == "memory" or self.used + self.cached + size > room:
                raise OutOfMemoryError(size, self.used + self.cached, self.limit)
            self.used += size
        memory = np.full(size + 16, GARBAGE, np.uint8)
        memory = memory[-memory.ctypes.data % 16 :][:size]
        block = memory.view(_Block)
        weakref.finalize(block, self._free, size)
        self.blocks[block.ctypes.data] = block
        return block

    def block_of(self, address: int, nbytes: int) -> Array:
        """Return the block that contains all of these bytes."""
        for begin, block in list(self.blocks.items()):
            if begin <= address and address + nbytes <= begin + block.nbytes:
                return block
        raise CUDARuntimeError(INVALID_VALUE)

    def _free(self, size: int) -> None:
        with self.lock:
            self.used -= size
            self.cached += size


class _Block(np.ndarray):  # an ndarray has no weak references
    pass


MEMORY = Memory()


def get_allocator() -> None:
    return None  # every array has its own block


def set_allocator(allocator: None) -> None:
    assert allocator is None


def alloc_pinned_memory(size: int) -> Any:
    memory = (ctypes.c_ubyte * size)(*[GARBAGE] * min(size, 1 << 10))
    address = ctypes.addressof(memory)
    _pinned[address] = address + size
    weakref.finalize(memory, _pinned.pop, address)
    return memory


def is_pinned(address: int, nbytes: int) -> bool:
    """Return whether all bytes are pinned. CUDA does not copy memory that is pinned in part."""
    end = address + nbytes
    parts = [
        (first, last) for first, last in list(_pinned.items()) if first < end and address < last
    ]
    assert not parts or (parts[0][0] <= address and end <= parts[0][1]), "pinned in part"
    return bool(parts)


def _register(address: int, nbytes: int, flags: int) -> None:
    _check()
    assert flags == 1, "for all contexts"
    if fault() == "no pinning":
        raise CUDARuntimeError(INVALID_VALUE)
    if any(first < address + nbytes and address < last for first, last in list(_pinned.items())):
        raise CUDARuntimeError(ALREADY_REGISTERED)
    _pinned[address] = address + nbytes
    REGISTERED.append(("pin", address, nbytes))


def _unregister(address: int) -> None:
    _check()
    _hang()
    if address not in _pinned:
        raise CUDARuntimeError(NOT_REGISTERED)
    nbytes = _pinned.pop(address) - address
    bytes(_bytes_at(address, nbytes)[:: 1 << 12])  # ends the process if it is not mapped any more
    for first, last in list(UNDER_WAY.values()):
        assert not (first < address + nbytes and address < last), "a copy is under way"
    REGISTERED.append(("unpin", address, nbytes))


def _bytes_at(address: int, nbytes: int) -> Array:
    return np.frombuffer((ctypes.c_ubyte * nbytes).from_address(address), np.uint8)


def _copy(target: int, source: int, nbytes: int, kind: int, stream_pointer: int) -> None:
    """Copy as CUDA does: unpinned memory is read, or written, before the call returns."""
    stream = _streams[stream_pointer]
    block = MEMORY.block_of(target if kind == UPLOAD else source, nbytes)
    host = source if kind == UPLOAD else target
    what = "upload" if kind == UPLOAD else "download"
    here, there = _bytes_at(source, nbytes), _bytes_at(target, nbytes)
    meant = here.copy() if kind == UPLOAD else None
    is_async = is_pinned(host, nbytes)
    key = next(_numbers)

    def copy(_holds: Array = block) -> None:
        if meant is not None and is_async:
            assert np.array_equal(here, meant), "written before it was uploaded"
        np.copyto(there, here if meant is None else meant)
        UNDER_WAY.pop(key, None)

    if is_async:
        UNDER_WAY[key] = host, host + nbytes
    stream.put(what, copy)
    if not is_async and kind == DOWNLOAD:
        stream.finish()


def _count() -> int:
    if fault() == "driver":
        raise CUDARuntimeError(INSUFFICIENT_DRIVER)
    return 0 if fault() == "no device" else 1


runtime = SimpleNamespace(
    CUDARuntimeError=CUDARuntimeError,
    getDeviceCount=_count,
    getDeviceProperties=lambda device: {"name": b"NVIDIA Fake"},
    hostRegister=_register,
    hostUnregister=_unregister,
    memcpyAsync=_copy,
    memcpyHostToDevice=UPLOAD,
    memcpyDeviceToHost=DOWNLOAD,
)
driver = SimpleNamespace(CUDADriverError=CUDADriverError)
memory = SimpleNamespace(OutOfMemoryError=OutOfMemoryError)


class _Module:
    def load(self, code: bytes) -> None:
        self.file = code.decode()

    def get_function(self, symbol: str) -> Callable[..., None]:
        def launch(
            grid: tuple[int],
            block: tuple[int],
            arguments: tuple[Any, ...],
            shared_mem: int = 0,
            stream: Stream | None = None,
        ) -> None:
            assert Device().id == (stream or NULL).device, "the stream is another device's"
            assert grid[0] > 0, "CuPy launches one block where there are none"
            values = [_value(argument) for argument in arguments]
            if fault() == "silent":
                return
            kernel = Launch(self.file, symbol, grid[0], ())

            def start(_holds: tuple[Any, ...] = arguments) -> None:
                shim.start(kernel, values)

            (stream or NULL).put("launch", start)

        return launch


def _value(argument: Any) -> Any:
    """Return a kernel argument as the shim takes it.

    Raises:
        TypeError: CuPy does not pass such a value to a kernel.
    """
    pointed_to = getattr(argument, "_memory", None)
    if pointed_to is not None:
        return np.uintp(pointed_to.ctypes.data)
    is_opaque = isinstance(argument, np.ndarray) and argument.size == 1
    if type(argument) not in SCALARS and not is_opaque:
        raise TypeError(f"Unsupported type {type(argument)}")
    return argument


function = SimpleNamespace(Module=_Module)


class _Program:
    def __init__(self, file: str) -> None:
        self.file = file


def _create(source: str, file: str, headers: tuple[()], names: tuple[()]) -> _Program:
    if fault() == "nvrtc":
        raise RuntimeError('Failure finding "libnvrtc.so"')
    return _Program(file)


nvrtc = SimpleNamespace(
    NVRTCError=RuntimeError,
    getVersion=lambda: (0, 0),
    createProgram=_create,
    addNameExpression=lambda program, name: None,
    compileProgram=lambda program, options: None,
    getProgramLog=lambda program: "",
    getLoweredName=lambda program, name: name,
    getCUBIN=lambda program: program.file.encode(),
    destroyProgram=lambda program: None,
)
