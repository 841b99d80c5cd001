"""What of CuPy the backend uses, on the host: streams that work when somebody waits for them.

As on a card, what is put on a stream happens at any time until the stream is synchronised; here as
late as that, or when `cuda.CHANCE` says so. Who reads a result too early finds garbage, or what was
there before; who writes too early over what is to be uploaded ends the test. Kernels are those of
the shim. `FAKE_CUPY_FAULT` names a file; while it is there, what it says goes wrong: "driver", "no
device", "nvrtc", "silent" (kernels do nothing), "memory", "no pinning". Or, for the first process
that meets it and as long as that lives: the status of an error; or "hang", who waits waits on.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from cupy import cuda


class ndarray:  # noqa: N801  CuPy's name
    def __init__(self, memory, owner=None):
        self._memory = memory
        self._owner = owner  # the block of the pool
        self.shape, self.dtype, self.nbytes = memory.shape, memory.dtype, memory.nbytes
        self.flags = memory.flags
        self.data = SimpleNamespace(ptr=memory.ctypes.data)
        self.device = cuda.Device()

    def __dlpack_device__(self):
        return (2, 0)  # CUDA

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __getitem__(self, place):
        return ndarray(self._memory[place], self._owner)

    def reshape(self, *shape):
        return ndarray(self._memory.reshape(*shape), self._owner)

    def view(self, dtype):
        return ndarray(self._memory.view(dtype), self._owner)

    def set(self, source, stream=None):
        assert source.dtype == self.dtype
        assert source.shape == self.shape
        cuda.runtime.memcpyAsync(
            self.data.ptr, source.ctypes.data, self.nbytes, cuda.UPLOAD, (stream or cuda.NULL).ptr
        )

    def get(self, stream=None, order="C", out=None, blocking=True):
        assert out.dtype == self.dtype
        assert out.shape == self.shape
        stream = stream or cuda.NULL
        cuda.runtime.memcpyAsync(
            out.ctypes.data, self.data.ptr, self.nbytes, cuda.DOWNLOAD, stream.ptr
        )
        if blocking:
            stream.synchronize()


def empty(shape, dtype):
    memory = cuda.MEMORY.take(int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return ndarray(np.ndarray(shape, dtype, memory), memory)


def ascontiguousarray(array):
    return ndarray(np.ascontiguousarray(array._memory), array._owner)


def from_dlpack(array):
    memory = getattr(array, "_memory", None)
    return ndarray(np.from_dlpack(array) if memory is None else memory)


def get_default_memory_pool():
    return cuda.MEMORY
