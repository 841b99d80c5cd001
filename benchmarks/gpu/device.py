"""GPU shared by PyTorch and CuPy, and its clock."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from benchmarks.engine.torch_layers import Call
from pooling_engine.backends import select_backend
from pooling_engine.dtypes import BFLOAT16

# Reading this before each sample clears the L2 cache. It takes a quarter of a millisecond, in which
# the host can launch the kernels of the sample.
SWEEP_BYTES = 1 << 30


class Device:
    """Current GPU, on the stream that both libraries use by default.

    Attributes:
        backend: the name of the engine's backend.
        device: the name that PyTorch uses.
    """

    backend, device = "cupy", "cuda"

    def __init__(self) -> None:
        import cupy

        self._cupy = cupy
        self._begin, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._sweep = torch.zeros(SWEEP_BYTES // 4, device=self.device)
        self._up, self._down = torch.cuda.Stream(), torch.cuda.Stream()

    def facts(self) -> dict[str, Any]:
        """Return the properties of the GPU and the library versions."""
        properties = torch.cuda.get_device_properties(self.device)
        runtime = self._cupy.cuda.runtime
        return {
            "name": properties.name,
            "multiprocessors": properties.multi_processor_count,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "compute_capability": f"{properties.major}.{properties.minor}",
            "driver": runtime.driverGetVersion(),
            "cuda": runtime.runtimeGetVersion(),
            "cupy": self._cupy.__version__,
            "torch": torch.__version__,
            "torch_cuda": torch.version.cuda,
        }

    def native(self, tensor: torch.Tensor) -> Any:
        """Return the tensor as a CuPy array, without a copy."""
        if tensor.dtype is torch.bfloat16:  # CuPy 13 does not import it
            return self._cupy.from_dlpack(tensor.view(torch.int16)).view(BFLOAT16)
        return self._cupy.from_dlpack(tensor)

    def pinned(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Return a float32 host tensor in page-locked memory."""
        return torch.zeros(shape, pin_memory=True)

    def synchronize(self) -> None:
        """Wait until all launched work has finished."""
        torch.cuda.synchronize()

    def kernel_ms(self, call: Call) -> float:
        """Return the milliseconds of a call by the GPU's clock.

        If a call waits for the GPU, the time includes the host's work after that.
        """
        self._sweep.sum()
        self._begin.record()
        call()
        self._end.record()
        self._end.synchronize()
        return self._begin.elapsed_time(self._end)

    def launches_ms(self, call: Call) -> float:
        """Return the milliseconds from an engine call's first launch to the end of its last."""
        self._sweep.sum()
        launched: list[str] = []

        def timed(name: str, launch: Call) -> None:
            if not launched:
                self._begin.record()
            launch()
            self._end.record()
            launched.append(name)

        with watched(self.backend, timed):
            call()
        self._end.synchronize()
        return self._begin.elapsed_time(self._end)

    def calls_ms(self, call: Call, calls: int) -> float:
        """Return the mean milliseconds of consecutive calls by the host's clock."""
        call()
        self.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        self.synchronize()
        return (time.perf_counter() - start) * 1e3 / calls

    def copy_in_and_out(self, host_in: torch.Tensor, host_out: torch.Tensor) -> Call:
        """Return a call that copies one tensor to the GPU and another one back at the same time."""
        onto, source = (each.to(self.device) for each in (host_in, host_out))

        def work() -> None:
            with torch.cuda.stream(self._up):
                onto.copy_(host_in, non_blocking=True)
            with torch.cuda.stream(self._down):
                host_out.copy_(source, non_blocking=True)
            self.synchronize()

        return work


def kernels_of(backend: str, call: Call) -> list[str]:
    """Return the names of the kernels that an engine call launches."""
    names: list[str] = []

    def counted(name: str, launch: Call) -> None:
        names.append(name)
        launch()

    with watched(backend, counted):
        call()
    return names


@contextlib.contextmanager
def watched(backend: str, watch: Callable[[str, Call], None]) -> Iterator[None]:
    """Pass each launch of the engine to `watch`, as its name and a call."""
    device: Any = select_backend(backend).device  # type: ignore[attr-defined]
    launch = device.launch
    device.launch = lambda what, *arrays: watch(what.name, partial(launch, what, *arrays))
    try:
        yield
    finally:
        del device.launch
