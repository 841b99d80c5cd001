"""Of `cupy.cuda`: devices, streams, memory, kernels, and what goes wrong with them."""

from __future__ import annotations

import itertools
import os
import threading
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import shim

from pooling_engine.backends.cupy_kernels.launches import Launch

GARBAGE, HANG = 0xA5, "hang"
INSUFFICIENT_DRIVER, OUT_OF_MEMORY = 35, 2

EVENTS: list[tuple[int, str]] = []  # the stream, and what was put on it, or "wait"
STREAMS: weakref.WeakSet[Stream] = weakref.WeakSet()
CHANCE = None  # a `random.Random`, for tests in one thread: work goes on whenever any is put
_numbers = itertools.count()
_pinned: list[tuple[int, int]] = []
_sticky: list[int] = []  # the status of a device that is lost


class CUDARuntimeError(RuntimeError):
    def __init__(self, status):
        self.status = status
        super().__init__(f"cudaError{status}: as the test wants it")


class CUDADriverError(RuntimeError):
    def __init__(self, status):
        self.status = status
        super().__init__(f"CUDA_ERROR_{status}: as the test wants it")


class OutOfMemoryError(MemoryError):
    def __init__(self, size, total, limit=0):
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,}).")


def fault():
    path = Path(os.environ.get("FAKE_CUPY_FAULT", "/no/such/file"))
    return path.read_text() if path.exists() else ""


def _check():
    wrong = fault()
    if not _sticky and (wrong.isdigit() or wrong == HANG):
        _sticky.append(wrong if wrong == HANG else int(wrong))
        Path(os.environ["FAKE_CUPY_FAULT"]).unlink(missing_ok=True)
    if _sticky and HANG not in _sticky:
        raise CUDARuntimeError(_sticky[0])


class Device:
    """The current one of a thread is 0, but in a block of another."""

    compute_capability = "90"
    _current = threading.local()

    def __init__(self, number=None):
        self.id = getattr(self._current, "id", 0) if number is None else number
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
        self.pci_bus_id = f"0000:{int(visible):02X}:00.0"

    def __enter__(self):
        self._outer = Device().id
        self._current.id = self.id
        return self

    def __exit__(self, *_):
        self._current.id = self._outer


class Stream:
    def __init__(self, null=False, non_blocking=False):
        self._work = []
        self.number = next(_numbers)
        STREAMS.add(self)
        self.device = 0 if null else Device().id

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def put(self, what, work):
        _check()
        EVENTS.append((self.number, what))
        self._work.append(work)
        if CHANCE is not None:
            for stream in [self, *CHANCE.sample(list(STREAMS), len(STREAMS))]:
                stream.finish(CHANCE.randrange(3))

    def synchronize(self):
        _check()
        while HANG in _sticky:
            time.sleep(1)
        EVENTS.append((self.number, "wait"))
        self.finish()

    def finish(self, most=1 << 30):
        while self._work and most:
            self._work.pop(0)()
            most -= 1


NULL = Stream(null=True)


class Memory:
    """A pool: what is freed stays with it until its blocks are freed."""

    def __init__(self):
        self.limit, self.used, self.cached = 0, 0, 0
        self.lock = threading.RLock()
        self.total = int(os.environ.get("FAKE_CUPY_BYTES", 1 << 30))

    def set_limit(self, size=None, fraction=None):
        self.limit = size

    def get_limit(self):
        return self.limit

    def free_all_blocks(self, stream=None):
        NULL.finish()  # as cudaFree does
        self.cached = 0

    def take(self, size):
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
        return block

    def _free(self, size):
        with self.lock:
            self.used -= size
            self.cached += size


class _Block(np.ndarray):
    pass


MEMORY = Memory()


def get_allocator():
    return None  # every array has memory of its own


def set_allocator(allocator):
    assert allocator is None


def alloc_pinned_memory(size):
    memory = np.full(size, GARBAGE, np.uint8)
    _pinned.append((memory.ctypes.data, memory.ctypes.data + size))
    return memory


def is_pinned(array):
    return any(begin <= array.ctypes.data < end for begin, end in _pinned)


def _count():
    if fault() == "driver":
        raise CUDARuntimeError(INSUFFICIENT_DRIVER)
    return 0 if fault() == "no device" else 1


runtime = SimpleNamespace(
    CUDARuntimeError=CUDARuntimeError,
    getDeviceCount=_count,
    getDeviceProperties=lambda device: {"name": b"NVIDIA Fake"},
)
driver = SimpleNamespace(CUDADriverError=CUDADriverError)
memory = SimpleNamespace(OutOfMemoryError=OutOfMemoryError)


class _Module:
    def load(self, code):
        self.file = code.decode()

    def get_function(self, symbol):
        def launch(grid, block, arguments, shared_mem=0, stream=None):
            assert Device().id == (stream or NULL).device, "the stream is another device's"
            if fault() == "silent":
                return
            values = [_value(argument) for argument in arguments]
            kernel = Launch(self.file, symbol, grid[0], ())

            def start(_arguments=arguments):  # whose memory no other work may have before
                shim.start(kernel, values)

            (stream or NULL).put("launch", start)

        return launch


def _value(argument):
    memory = getattr(argument, "_memory", None)
    return argument if memory is None else np.uintp(memory.ctypes.data)


function = SimpleNamespace(Module=_Module)


class _Program:
    def __init__(self, file):
        self.file = file


def _create(source, file, headers, names):
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
