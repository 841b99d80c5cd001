"""A card without a card: host memory that only the shim's kernels and copies may touch."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np

from tests.gpu import shim

GUARD, MARK, GARBAGE = 64, 0x5A, 0xA5
ALIGNMENT = (
    16  # bytes: no more than kernels ask for, so that arrays end close to where reading ends
)
_protect = ctypes.CDLL(None, use_errno=True).mprotect
_protect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int


class CardArray:
    """An array that NumPy cannot read, as if it were in another memory."""

    def __init__(self, memory):
        self._memory = memory
        self.shape, self.dtype = memory.shape, memory.dtype

    def __dlpack_device__(self):
        return (2, 0)  # CUDA

    def __array__(self, *_, **__):
        raise TypeError("an array of the card is not converted by itself")


class ShimDevice:
    """A `Device` whose kernels run on the host; what it hands out is full of garbage.

    Attributes:
        shift: how far from a multiple of 64 bytes its arrays begin, in elements.
        launched: the names of the kernels, in order.
        copied: the bytes of every copy between the two memories.
    """

    def __init__(self):
        self.shift, self.launched, self.copied = 0, [], []
        self.free_unused = None

    def names(self):
        return ("shim",)

    def compile_in_background(self):
        pass  # all kernels are compiled

    def limit_memory(self, nbytes):
        raise AssertionError("the shim has no limits")

    def adopt(self, array):
        if array._memory.flags.c_contiguous:
            return array, False
        copy = self.empty(array.shape, array.dtype)
        copy._memory[...] = array._memory
        return copy, True

    def empty(self, shape, dtype):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        shift = self.shift * np.dtype(dtype).itemsize
        buffer = _readable(GUARD + size + ALIGNMENT + shift)
        begin = (buffer.size - size - shift) // ALIGNMENT * ALIGNMENT + shift
        buffer[begin - GUARD : begin] = buffer[begin + size :] = MARK
        buffer[begin : begin + size] = GARBAGE
        return CardArray(np.ndarray(shape, dtype, buffer, begin))

    def address(self, array):
        return array._memory.ctypes.data

    def upload(self, source, target):
        self.copied.append(source.nbytes)
        target._memory[...] = source

    def download(self, source, target):
        self.copied.append(target.nbytes)
        target[...] = source._memory

    def wait(self):
        pass  # nothing is put off

    def pin(self, memory):
        return None

    def is_pinned(self, array):
        return False

    def launch(self, launch, *arrays):
        memories = [None if array is None else array._memory for array in arrays]
        self.launched.append(launch.name)
        shim.run(launch, *memories)
        for memory in memories:
            if memory is not None:
                assert_guards_hold(memory)


def _readable(size):
    """At least so many bytes; who reads beyond them ends the process."""
    pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = np.frombuffer(mmap.mmap(-1, pages + mmap.PAGESIZE), np.uint8, pages)
    if _protect(memory.ctypes.data + pages, mmap.PAGESIZE, 0):
        raise OSError(ctypes.get_errno(), "mprotect")
    return memory


def assert_guards_hold(memory):
    """Nothing was written beside an array of the card."""
    buffer = memory.base
    begin = memory.ctypes.data - buffer.ctypes.data
    assert (buffer[begin - GUARD : begin] == MARK).all()
    assert (buffer[begin + memory.nbytes :] == MARK).all()
