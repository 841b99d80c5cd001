"""CuPy backend: CUDA kernels on an NVIDIA GPU, for host arrays and device arrays.

Most calls are one kernel. Gradients of shared ties take two or three kernels, those of norms two.
The NumPy backend computes plans of more than three spatial axes, and plans whose kernels are still
being compiled in the background; both are logged. Results are bit-identical to NumPy's except for
norms, which always wait for their kernel.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import cycle
from typing import Any, TypeVar

import numpy as np

from pooling_engine.backends.cupy_backend.device import positions
from pooling_engine.backends.cupy_backend.device.cupy_device import CupyDevice
from pooling_engine.backends.cupy_backend.device.library import NotCompiledError
from pooling_engine.backends.cupy_backend.device.protocols import Device, HostArray
from pooling_engine.backends.cupy_backend.planning.chunks import LaunchStep
from pooling_engine.backends.cupy_backend.planning.kernels import VECTOR_BYTES
from pooling_engine.backends.cupy_backend.planning.launches import (
    backward_launch,
    forward_launch,
)
from pooling_engine.backends.cupy_backend.planning.positions import has_position_kernels
from pooling_engine.backends.cupy_backend.planning.steps import (
    backward_steps,
    forward_steps,
    residual_name,
    scratch_dtypes,
)
from pooling_engine.backends.cupy_backend.transfers.staging import BUFFER_BYTES, Staging
from pooling_engine.backends.numpy_backend.backend import NumpyBackend
from pooling_engine.backends.rules import reject_nan, reject_overflow
from pooling_engine.dtypes import FLOATS, INTEGERS
from pooling_engine.plans.indices import check_window_indices, from_positions, to_positions
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.plans.planning import make_plan
from pooling_engine.specs.enums import IndexFormat, Mode
from pooling_engine.specs.spec import PoolSpec

Array = Any  # a NumPy array, or an array of the device
Value = TypeVar("Value")
PROBE_BYTES = 4096  # staging buffer of the probes

_log = logging.getLogger("pooling_engine")


class CupyBackend:
    """Backend that pools on a device. Host arrays are copied to the device and back.

    Args:
        device: device to compute on; tests pass one without a GPU.
        buffer_bytes: size of a staging buffer; see `Staging`.

    Attributes:
        device: device to compute on.
        staging: transfers of host arrays.
    """

    name = "cupy"
    modes = tuple(Mode)
    dtypes = FLOATS + INTEGERS
    index_formats = tuple(IndexFormat)

    def __init__(self, device: Device, buffer_bytes: int = BUFFER_BYTES) -> None:
        self.device = device
        self.staging = Staging(device, buffer_bytes)
        device.free_unused = self.staging.buffers.free_idle
        self._probe_staging = Staging(device, PROBE_BYTES, max_buffers=1)
        self._probe_values = cycle(range(3, 100))
        self._numpy = NumpyBackend()

    def devices(self) -> tuple[str, ...]:
        """Return the model and the PCI bus ID of the device."""
        return self.device.names()

    def limit_memory(self, nbytes: int) -> None:
        """Limit the device memory of this process."""
        self.device.limit_memory(nbytes)

    def probe(self) -> None:
        """Run a tiny call with a known result, through a staging buffer that no call uses.

        Raises:
            ArithmeticError: the result is wrong.
        """
        expected = next(self._probe_values)  # differs each time, so stale memory cannot pass
        x, output = np.array([[[1, expected, 2]]], np.float32), np.zeros((1, 1, 1), np.float32)
        plan = make_plan(PoolSpec("max", 3), x.shape, x.dtype)
        steps = partial(forward_steps, has_indices=False)
        self._probe_staging.run(plan, steps, {"x": x}, {"y": output}, {})
        if output.item() != expected:
            raise ArithmeticError(f"the maximum of 1, {expected}, 2 is {output.item()}")

    def pin(self, memory: HostArray) -> Callable[[], None] | None:
        """Let the GPU access host memory directly; see `PinnedMemory.pin`."""
        return self.device.pin(memory)

    def warm_up(self, *, background: bool) -> None:
        """Compile or load the kernels of the most common float32 calls.

        Args:
            background: compile later kernels in the background.
        """
        x = np.zeros((1, 1, 8, 8), np.float32)
        for mode in (Mode.MAX, Mode.AVERAGE):
            plan = make_plan(PoolSpec(mode, 2), x.shape, x.dtype)
            output = np.empty(plan.output_shape, np.float32)
            indices = np.empty(plan.output_shape, plan.index_dtype) if plan.selects else None
            self.forward(plan, x, output, None)
            self.forward(plan, x, output, indices)
            self.backward(plan, output, indices, None, np.empty_like(x))
        if background:
            self.device.compile_in_background()

    def forward(self, plan: PoolPlan, x: Array, output: Array, indices: Array | None) -> None:
        """Pool C-contiguous `x` into C-contiguous `output` and, if given, `indices`."""
        has_indices = indices is not None
        if forward_launch(plan, has_indices, True) is None:
            self._on_host("forward", plan, (x,), (output, indices))
            return
        outputs = {"y": output, "indices": indices} if has_indices else {"y": output}
        steps = partial(forward_steps, has_indices=has_indices)
        try:
            if self.run_steps(plan, steps, {"x": x}, outputs, {}):
                reject_nan(plan) if plan.selects else reject_overflow()
        except NotCompiledError:
            self._on_host("forward", plan, (x,), (output, indices))

    def backward(
        self, plan: PoolPlan, dy: Array, indices: Array | None, x: Array | None, dx: Array
    ) -> None:
        """Compute the gradient into C-contiguous `dx` from C-contiguous arrays."""
        if backward_launch(plan, True) is None:
            self._on_host("backward", plan, (dy, indices, x), (dx,))
            return
        inputs, residual = {"dy": dy}, residual_name(plan)
        if residual is not None:
            inputs[residual] = x if residual == "x" else indices
        try:
            has_error = self.run_steps(
                plan, backward_steps, inputs, {"dx": dx}, scratch_dtypes(plan)
            )
        except NotCompiledError:
            self._on_host("backward", plan, (dy, indices, x), (dx,))
            return
        if has_error and residual == "x":
            reject_nan(plan)
        elif has_error:  # the host searches for the index that the error names
            check_window_indices(plan, _required(self._as_host(indices, self.to_host)))

    def to_host(self, array: Array) -> HostArray:
        """Return a host copy of a device array."""
        host = _empty_like(array)
        self.staging.download(array, host)
        return host

    def to_device(self, array: HostArray) -> Array:
        """Return a device copy of a host array."""
        target = self.device.empty(array.shape, array.dtype)
        self.staging.upload(np.ascontiguousarray(array), target)
        return target

    def to_positions(
        self, plan: PoolPlan, indices: Array, index_format: IndexFormat, target: Array
    ) -> None:
        """Write window indices on the device as int64 positions into `target`, also there."""
        if has_position_kernels(plan):
            with suppress(NotCompiledError):
                positions.to_positions(self.device, plan, indices, index_format, target)
                return
        host = _empty_like(target)
        to_positions(plan, self.to_host(indices), index_format, host)
        self.device.upload(host, target)

    def from_positions(self, plan: PoolPlan, given: Array, index_format: IndexFormat) -> Array:
        """Convert int64 positions on the device into window indices.

        Raises:
            InvalidTensorError: no tap of the window lies on an element at a position.
        """
        if has_position_kernels(plan):
            with suppress(NotCompiledError):
                indices = positions.from_positions(self.device, plan, given, index_format)
                if indices is not None:
                    return indices  # otherwise the host searches for the position to name
        return self.to_device(from_positions(plan, self.to_host(given), index_format))

    def run_steps(
        self,
        plan: PoolPlan,
        steps: Callable[..., Sequence[LaunchStep]],
        inputs: dict[str, Array],
        outputs: dict[str, Array],
        scratch: dict[str, np.dtype[Any]],
    ) -> bool:
        """Compute a call; return whether a kernel set the error flag.

        Args:
            plan: plan of the call.
            steps: launches from the plan of a chunk and the alignment of the arrays.
            inputs: arrays that are read, all on the host or all on the device.
            outputs: arrays that are written, in the same memory.
            scratch: dtypes of the device-only arrays, which have the shape of the forward output.
        """
        arrays = inputs | outputs
        are_on_host = isinstance(next(iter(arrays.values())), np.ndarray)
        if are_on_host:
            if plan.outer:
                has_error = self.staging.run(plan, steps, inputs, outputs, scratch)
                if has_error is not None:
                    return has_error
            arrays = {name: self.device.empty(a.shape, a.dtype) for name, a in arrays.items()}
        for name, dtype in scratch.items():
            arrays[name] = self.device.empty(plan.output_shape, dtype)
        if are_on_host:
            for name, array in inputs.items():
                self.staging.upload(array, arrays[name])
        has_flag = self._launch_all(plan, steps, arrays)
        if are_on_host:
            for name, array in outputs.items():
                self.staging.download(arrays[name], array)
        return has_flag and bool(self.to_host(arrays["flag"])[0])

    def _launch_all(
        self,
        plan: PoolPlan,
        steps: Callable[..., Sequence[LaunchStep]],
        arrays: dict[str, Array],
    ) -> bool:
        """Launch the kernels of a call on device arrays.

        Returns:
            Whether the kernels have an error flag, which is then added to `arrays`.
        """
        addresses = 0
        for array in arrays.values():
            addresses |= self.device.address(array)
        launch_steps = steps(plan, addresses % VECTOR_BYTES == 0)
        has_flag = any("flag" in names for _, names in launch_steps)
        if has_flag:
            arrays["flag"] = self.device.empty((1,), np.dtype(np.int32))
            self.device.upload(np.zeros(1, np.int32), arrays["flag"])
        for launch, names in launch_steps:
            if launch.blocks:
                self.device.launch(launch, *[arrays.get(name) for name in names])
        return has_flag

    def _on_host(
        self,
        direction: str,
        plan: PoolPlan,
        inputs: tuple[Array | None, ...],
        outputs: tuple[Array | None, ...],
    ) -> None:
        """Compute a call with the NumPy backend.

        Args:
            direction: "forward" or "backward".
            plan: plan of the call.
            inputs: arguments of that method before the results.
            outputs: results.
        """
        what = direction, plan.mode, plan.dtype.name
        _log.info("%s of %s %s has no compiled CUDA kernel; NumPy computes it", *what)
        host_inputs = (self._as_host(array, self.to_host) for array in inputs)
        host_outputs = [self._as_host(array, _empty_like) for array in outputs]
        getattr(self._numpy, direction)(plan, *host_inputs, *host_outputs)
        for host, array in zip(host_outputs, outputs, strict=True):
            if host is not None and host is not array:
                self.device.upload(host, array)

    @staticmethod
    def _as_host(array: Array | None, copy: Callable[[Array], HostArray]) -> HostArray | None:
        is_on_host = array is None or isinstance(array, np.ndarray)
        return array if is_on_host else copy(array)


def load() -> CupyBackend:
    """Return the backend if CuPy is installed and a device passes a probe.

    Raises:
        ModuleNotFoundError: CuPy is not installed.
        ImportError: no device works; the text gives the reason in one line.
    """
    try:
        backend = CupyBackend(CupyDevice())
        backend.probe()
    except Exception as error:  # whatever the reason, another backend can be used
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            raise
        raise ImportError(f"no usable CUDA device: {_one_line(error)}") from error
    return backend


def _one_line(error: Exception) -> str:
    """Return an error in one line; CuPy draws boxes of equals signs around some of its texts."""
    words = (word for word in str(error).split() if word.strip("="))
    return " ".join((f"{type(error).__name__}:", *words))


def _empty_like(array: Array) -> HostArray:
    return np.empty(array.shape, array.dtype)


def _required(value: Value | None) -> Value:
    """Return a value that the caller knows to be present."""
    if value is None:
        raise AssertionError("expected an array here")
    return value
