"""Translation of CUDA errors: out of memory, or the device is lost to this process."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from pooling_engine.errors import DeviceMemoryError, lost_device

OUT_OF_MEMORY = 2
# After these errors every CUDA call of the process fails; only a new process can use the device.
# The runtime (cudaError) and the driver (CUDA_ERROR) use the same numbers.
LOST = {
    46: "devices unavailable",
    100: "no device",
    214: "uncorrectable ECC error",
    220: "uncorrectable NVLink error",
    226: "contained error",
    700: "illegal address",
    702: "launch timeout",
    709: "context destroyed",
    710: "assertion on the device",
    714: "hardware stack error",
    715: "illegal instruction",
    716: "misaligned address",
    717: "invalid address space",
    718: "invalid program counter",
    719: "launch failure",
    999: "unknown error",
}


class TranslatedErrors:
    """Context manager that turns CuPy's errors into errors of the engine.

    It has no state, so that several threads can use one instance at the same time.

    Args:
        cupy: the `cupy` module.

    Raises:
        DeviceMemoryError: the device, or pinned host memory, is exhausted.
        UnavailableError: the device is lost; the fact `cause` is `LOST_DEVICE`.
    """

    __slots__ = ("_cuda_errors", "_out_of_memory")

    def __init__(self, cupy: Any) -> None:
        self._out_of_memory = cupy.cuda.memory.OutOfMemoryError
        self._cuda_errors = cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, self._out_of_memory):
            raise DeviceMemoryError(f"the device is out of memory: {error}") from error
        if isinstance(error, self._cuda_errors):
            if error.status == OUT_OF_MEMORY:
                raise DeviceMemoryError(f"the device is out of memory: {error}") from error
            if error.status in LOST:
                raise lost_device(LOST[error.status]) from error
