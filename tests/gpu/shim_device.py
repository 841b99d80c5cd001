"""Device without a GPU: host memory that only copies and the shim's kernels may touch."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any, NoReturn

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pooling_engine.backends.cupy_backend.planning.launches import Launch
from tests.gpu import shim

Array = NDArray[Any]
GUARD, GUARD_BYTE, GARBAGE = 64, 0x5A, 0xA5
ALIGNMENT = 16  # bytes: the least that kernels need, so that arrays end close to the guard page
_protect = ctypes.CDLL(None, use_errno=True).mprotect
_protect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int


class DeviceArray:
    """Array that NumPy cannot read, as if it were in another memory."""

    def __init__(self, memory: Array) -> None:
        self._memory = memory
        self.shape, self.dtype = memory.shape, memory.dtype

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)  # CUDA

    def __array__(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a device array has no implicit conversion to NumPy")

    @property
    def memory(self) -> Array:
        """The elements, for the device and its tests."""
        return self._memory


class ShimDevice:
    """`Device` whose kernels run on the host. New arrays are filled with garbage.

    Attributes:
        shift: distance of new arrays from a multiple of 64 bytes, in elements.
        launched: names of the launched kernels, in order.
        copied: bytes of every copy between host and device.
    """

    def __init__(self) -> None:
        self.shift = 0
        self.launched: list[str] = []
        self.copied: list[int] = []
        self.free_unused = lambda: None

    def names(self) -> tuple[str, ...]:
        return ("shim",)

    def compile_in_background(self) -> None:
        pass  # all kernels are compiled

    def limit_memory(self, nbytes: int) -> None:
        raise AssertionError("the shim has no memory limit")

    def adopt(self, array: DeviceArray) -> tuple[DeviceArray, bool]:
        if array.memory.flags.c_contiguous:
            return array, False
        copy = self.empty(array.shape, array.dtype)
        copy.memory[...] = array.memory
        return copy, True

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> DeviceArray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        shift = self.shift * np.dtype(dtype).itemsize
        buffer = _guarded_pages(GUARD + size + ALIGNMENT + shift)
        begin = (buffer.size - size - shift) // ALIGNMENT * ALIGNMENT + shift
        buffer[begin - GUARD : begin] = buffer[begin + size :] = GUARD_BYTE
        buffer[begin : begin + size] = GARBAGE
        return DeviceArray(np.ndarray(shape, dtype, buffer, begin))

    def address(self, array: DeviceArray) -> int:
        return array.memory.ctypes.data

    def upload(self, source: Array, target: DeviceArray) -> None:
        self.copied.append(source.nbytes)
        target.memory[...] = source

    def download(self, source: DeviceArray, target: Array) -> None:
        self.copied.append(target.nbytes)
        target[...] = source.memory

    def wait(self) -> None:
        pass  # everything is done at once

    def pin(self, memory: Array) -> None:
        return None

    def is_pinned(self, array: Array) -> bool:
        return False

    def staging_buffer(self, nbytes: int) -> NoReturn:
        raise AssertionError("the shim has no staging buffers")

    def launch(self, launch: Launch, *arrays: DeviceArray | None) -> None:
        memories = [None if array is None else array.memory for array in arrays]
        self.launched.append(launch.name)
        shim.run(launch, *memories)
        for memory in memories:
            if memory is not None:
                assert_guards_are_intact(memory)


def _guarded_pages(size: int) -> Array:
    """Return at least that many bytes, followed by a page whose access ends the process."""
    pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = np.frombuffer(mmap.mmap(-1, pages + mmap.PAGESIZE), np.uint8, pages)
    if _protect(memory.ctypes.data + pages, mmap.PAGESIZE, 0):
        raise OSError(ctypes.get_errno(), "mprotect")
    return memory


def assert_guards_are_intact(memory: Array) -> None:
    """Check that nothing was written beside a device array."""
    buffer = memory.base
    assert isinstance(buffer, np.ndarray)
    begin = memory.ctypes.data - buffer.ctypes.data
    assert (buffer[begin - GUARD : begin] == GUARD_BYTE).all()
    assert (buffer[begin + memory.nbytes :] == GUARD_BYTE).all()
