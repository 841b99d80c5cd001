"""Fake CuPy: the functions that the backend uses, on the host, with streams that run late.

CUDA may run the work on a stream at any time until the stream is synchronised. The fake runs it as
late as that, or at random times if `cuda.CHANCE` is set. Code that reads a result too early finds
garbage or stale data; code that overwrites an array before its upload fails the test. Kernels are
those of the shim.

`FAKE_CUPY_FAULT` names a file. While the file exists, its content goes wrong: "driver",
"no device", "nvrtc", "silent" (kernels do nothing), "memory" or "no pinning". If it contains the
status of a CUDA error, the first process that reads it fails with that error until it ends. If it
contains "hang", waiting never returns in that process.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cupy import cuda

Array = NDArray[Any]


class ndarray:  # noqa: N801  CuPy's name
    def __init__(self, memory: Array, owner: Array | None = None) -> None:
        self._memory = memory
        self._owner = owner  # block of the pool
        self.shape, self.dtype, self.nbytes = memory.shape, memory.dtype, memory.nbytes
        self.flags = memory.flags
        self.data = SimpleNamespace(ptr=memory.ctypes.data)
        self.device: Any = cuda.Device()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)  # CUDA

    def __array__(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __getitem__(self, index: Any) -> ndarray:
        return ndarray(self._memory[index], self._owner)

    def reshape(self, *shape: int) -> ndarray:
        return ndarray(self._memory.reshape(*shape), self._owner)

    def view(self, dtype: DTypeLike) -> ndarray:
        return ndarray(self._memory.view(dtype), self._owner)

    def set(self, source: Array, stream: cuda.Stream | None = None) -> None:
        assert source.dtype == self.dtype
        assert source.shape == self.shape
        cuda.runtime.memcpyAsync(
            self.data.ptr, source.ctypes.data, self.nbytes, cuda.UPLOAD, (stream or cuda.NULL).ptr
        )

    def get(
        self,
        stream: cuda.Stream | None = None,
        order: str = "C",
        out: Array | None = None,
        blocking: bool = True,
    ) -> None:
        assert out is not None
        assert out.dtype == self.dtype
        assert out.shape == self.shape
        stream = stream or cuda.NULL
        cuda.runtime.memcpyAsync(
            out.ctypes.data, self.data.ptr, self.nbytes, cuda.DOWNLOAD, stream.ptr
        )
        if blocking:
            stream.synchronize()


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> ndarray:
    memory = cuda.MEMORY.take(int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return ndarray(np.ndarray(shape, dtype, memory), memory)


def ascontiguousarray(array: ndarray) -> ndarray:
    return ndarray(np.ascontiguousarray(array._memory), array._owner)


def from_dlpack(array: Any) -> ndarray:
    memory = getattr(array, "_memory", None)
    return ndarray(np.from_dlpack(array) if memory is None else memory)


def get_default_memory_pool() -> cuda.Memory:
    return cuda.MEMORY
