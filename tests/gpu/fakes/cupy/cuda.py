"""Of `cupy.cuda`: devices, streams, memory, kernels, and what goes wrong with them."""

from __future__ import annotations

import ctypes
import itertools
import os
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from pooling_engine.backends.cupy_backend.planning.launches import Launch
from tests.gpu import shim

GARBAGE, HANG = 0xA5, "hang"
INSUFFICIENT_DRIVER, INVALID_VALUE, ALREADY_REGISTERED, NOT_REGISTERED = 35, 1, 712, 713
UPLOAD, DOWNLOAD = 1, 2  # cudaMemcpyKind

EVENTS: list[tuple[int, str]] = []  # the stream, and what was put on it, or "wait"
STREAMS: weakref.WeakSet[Stream] = weakref.WeakSet()
_streams: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()
CHANCE = None  # a `random.Random`, for tests in one thread: work goes on whenever any is put
_numbers = itertools.count()
_pinned: dict[int, int] = {}  # where it ends, by where it begins
UNDER_WAY: dict[int, tuple[int, int]] = {}  # where the host's memory is that copies use
REGISTERED: list[tuple[str, int, int]] = []  # what was pinned, or no more: where, how many bytes
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
    try:
        return Path(os.environ.get("FAKE_CUPY_FAULT", "/no/such/file")).read_text()
    except FileNotFoundError:  # another process may have met it just now
        return ""


def _check():
    wrong = fault()
    if not _sticky and (wrong.isdigit() or wrong == HANG):
        with suppress(FileNotFoundError):  # of processes that read it at once one is the first
            Path(os.environ["FAKE_CUPY_FAULT"]).unlink()
            _sticky.append(wrong if wrong == HANG else int(wrong))
    if _sticky and HANG not in _sticky:
        raise CUDARuntimeError(_sticky[0])


def _hang():
    while HANG in _sticky:
        time.sleep(1)


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
        self._work, self._order = [], threading.RLock()
        self.number = self.ptr = next(_numbers)
        STREAMS.add(self)
        _streams[self.ptr] = self
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
        _hang()
        EVENTS.append((self.number, "wait"))
        self.finish()

    def finish(self, most=1 << 30):
        with self._order:  # nor does it return while another thread is at what came before
            while self._work and most:
                self._work.pop(0)()
                most -= 1


NULL = Stream(null=True)


def get_current_stream():
    return NULL


class Memory:
    """A pool: what is freed stays with it until its blocks are freed."""

    def __init__(self):
        self.limit, self.used, self.cached = 0, 0, 0
        self.lock = threading.RLock()
        self.blocks = weakref.WeakValueDictionary()  # by where they begin
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
        self.blocks[block.ctypes.data] = block
        return block

    def block_of(self, address, nbytes):
        """What was taken and has all of these bytes; it is freed when nobody holds it."""
        for begin, block in list(self.blocks.items()):
            if begin <= address and address + nbytes <= begin + block.nbytes:
                return block
        raise CUDARuntimeError(INVALID_VALUE)

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
    memory = (ctypes.c_ubyte * size)(*[GARBAGE] * min(size, 1 << 10))
    address = ctypes.addressof(memory)
    _pinned[address] = address + size
    weakref.finalize(memory, _pinned.pop, address)
    return memory


def is_pinned(address, nbytes):
    """All of it; to copy what is pinned in part is an error, as on a card."""
    end = address + nbytes
    parts = [
        (first, last) for first, last in list(_pinned.items()) if first < end and address < last
    ]
    assert not parts or (parts[0][0] <= address and end <= parts[0][1]), "pinned in part"
    return bool(parts)


def _register(address, nbytes, flags):
    _check()
    assert flags == 1, "for all contexts"
    if fault() == "no pinning":
        raise CUDARuntimeError(INVALID_VALUE)
    if any(first < address + nbytes and address < last for first, last in list(_pinned.items())):
        raise CUDARuntimeError(ALREADY_REGISTERED)
    _pinned[address] = address + nbytes
    REGISTERED.append(("pin", address, nbytes))


def _unregister(address):
    _check()
    _hang()
    if address not in _pinned:
        raise CUDARuntimeError(NOT_REGISTERED)
    nbytes = _pinned.pop(address) - address
    bytes(_bytes_at(address, nbytes)[:: 1 << 12])  # it is still mapped, or this process ends
    for first, last in list(UNDER_WAY.values()):
        assert not (first < address + nbytes and address < last), "a copy is under way"
    REGISTERED.append(("unpin", address, nbytes))


def _bytes_at(address, nbytes):
    return np.frombuffer((ctypes.c_ubyte * nbytes).from_address(address), np.uint8)


def _copy(target, source, nbytes, kind, stream):
    """As CUDA does: what is not pinned has been read when this returns, or has been written."""
    stream, block = _streams[stream], MEMORY.block_of(target if kind == UPLOAD else source, nbytes)
    host = source if kind == UPLOAD else target
    what = "upload" if kind == UPLOAD else "download"
    here, there = _bytes_at(source, nbytes), _bytes_at(target, nbytes)
    meant = here.copy() if kind == UPLOAD else None
    is_async = is_pinned(host, nbytes)
    key = next(_numbers)

    def copy(_holds=block):
        if meant is not None and is_async:
            assert np.array_equal(here, meant), "written before it was uploaded"
        np.copyto(there, here if meant is None else meant)
        UNDER_WAY.pop(key, None)

    if is_async:
        UNDER_WAY[key] = host, host + nbytes
    stream.put(what, copy)
    if not is_async and kind == DOWNLOAD:
        stream.finish()


def _count():
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
