"""CUDA's errors as ours: there is no room, or the device is lost to this process."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from pooling_engine.errors import DeviceMemoryError, lost_device

NO_ROOM = 2
# After these every call of the process fails, until another process is started. The numbers are
# those of the runtime (cudaError) and, for the same errors, of the driver (CUDA_ERROR).
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


class AsOurs:
    """A context manager that raises what CuPy raises in its block in our words.

    It has no state: any number of blocks may be in it at once, of any threads.

    Args:
        cupy: the module.

    Raises:
        DeviceMemoryError: the device, or the host's memory that it reaches, has no room.
        UnavailableError: the device is lost; the cause among its facts is `LOST_DEVICE`.
    """

    __slots__ = ("_no_room", "_of_cuda")

    def __init__(self, cupy: Any) -> None:
        self._no_room = cupy.cuda.memory.OutOfMemoryError
        self._of_cuda = cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, self._no_room):
            raise DeviceMemoryError(f"the device has no room: {error}") from error
        if isinstance(error, self._of_cuda):
            if error.status == NO_ROOM:
                raise DeviceMemoryError(f"the device has no room: {error}") from error
            if error.status in LOST:
                raise lost_device(LOST[error.status]) from error
