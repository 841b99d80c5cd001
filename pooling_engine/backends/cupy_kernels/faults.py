"""CUDA's errors as ours: there is no room, or the device is lost to this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def as_ours(cupy: Any) -> Iterator[None]:
    """Raises what CuPy raises in the block in our words.

    Args:
        cupy: the module.

    Raises:
        DeviceMemoryError: the device, or the host's memory that it reaches, has no room.
        UnavailableError: the device is lost; the cause among its facts is `LOST_DEVICE`.
    """
    try:
        yield
    except cupy.cuda.memory.OutOfMemoryError as error:
        raise DeviceMemoryError(f"the device has no room: {error}") from error
    except (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError) as error:
        if error.status == NO_ROOM:
            raise DeviceMemoryError(f"the device has no room: {error}") from error
        if error.status in LOST:
            raise lost_device(LOST[error.status]) from error
        raise
