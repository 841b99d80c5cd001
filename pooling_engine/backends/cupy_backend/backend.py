"""The CuPy backend: one kernel a call on an NVIDIA card, for arrays of the host or of the card.

Gradients of shared ties take two or three, those of norms two. What has no kernel is computed by
the NumPy backend on the host, and the log says so: more than three spatial axes; and, where nobody
waits for kernels, what has none yet. The bits are the same everywhere; but for norms, which are
waited for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import cycle
from typing import Any, TypeVar

import numpy as np

from pooling_engine.backends.cupy_backend.device.cupy_device import CupyDevice
from pooling_engine.backends.cupy_backend.device.library import NotCompiledError
from pooling_engine.backends.cupy_backend.device.protocols import Device, HostArray
from pooling_engine.backends.cupy_backend.planning import positions
from pooling_engine.backends.cupy_backend.planning.chunks import Step
from pooling_engine.backends.cupy_backend.planning.launches import (
    backward_launch,
    forward_launch,
)
from pooling_engine.backends.cupy_backend.planning.names import VECTOR_BYTES
from pooling_engine.backends.cupy_backend.planning.steps import (
    backward_steps,
    forward_steps,
    residual_of,
    scratch_of,
)
from pooling_engine.backends.cupy_backend.transfers.staging import LANE_BYTES, Staging
from pooling_engine.backends.numpy_backend.backend import NumpyBackend
from pooling_engine.backends.numpy_backend.select import refuse_nan
from pooling_engine.backends.numpy_backend.sums import refuse_overflow
from pooling_engine.dtypes import FLOATS, INTEGERS
from pooling_engine.plans.indices import from_positions, refuse_forged, to_positions
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.plans.planning import make_plan
from pooling_engine.specs.enums import IndexFormat, Mode
from pooling_engine.specs.spec import PoolSpec

Array = Any  # of NumPy, or of the device
Given = TypeVar("Given")
PROBE_BYTES = 4096  # of the memory that probes go through

_log = logging.getLogger("pooling_engine")


class CupyBackend:
    """Pools on a device; arrays that are on the host are copied there and back.

    Args:
        device: the card; in tests, something like one.
        lane_bytes: of the memory that arrays of the host go through, as `Staging` says.
    """

    name = "cupy"
    modes = tuple(Mode)
    dtypes = FLOATS + INTEGERS
    index_formats = tuple(IndexFormat)

    def __init__(self, device: Device, lane_bytes: int = LANE_BYTES) -> None:
        self.device = device
        self._staging = Staging(device, lane_bytes)
        device.spare = self._staging.trim
        self._probes, self._answers = Staging(device, PROBE_BYTES, lanes=1), cycle(range(3, 100))
        self._numpy = NumpyBackend()

    def devices(self) -> tuple[str, ...]:
        """The card, by its name and its place."""
        return self.device.names()

    def limit_memory(self, nbytes: int) -> None:
        """Bounds the memory of the card."""
        self.device.limit_memory(nbytes)

    def probe(self) -> None:
        """A tiny call of known answer, through memory that is kept for it: it waits for no other.

        Raises:
            ArithmeticError: the answer is another.
        """
        expected = next(self._answers)  # another one each time: what was there before is no answer
        x, output = np.array([[[1, expected, 2]]], np.float32), np.zeros((1, 1, 1), np.float32)
        plan = make_plan(PoolSpec("max", 3), x.shape, x.dtype)
        steps = partial(forward_steps, has_indices=False)
        self._probes.run(plan, steps, {"x": x}, {"y": output}, {})
        if output.item() != expected:
            raise ArithmeticError(f"the maximum of 1, {expected}, 2 is {output.item()}")

    def pin(self, memory: HostArray) -> Callable[[], None] | None:
        """Lets the card read and write memory of the host by itself, as `Backend` says."""
        return self.device.pin(memory)

    def warm_up(self, *, background: bool) -> None:
        """Compiles the kernels for float32 and the most common calls, or finds them on disk."""
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
        """Pools C-contiguous `x` into C-contiguous `output` and, if given, `indices`."""
        has_indices = indices is not None
        if forward_launch(plan, has_indices, True) is None:
            self._on_host("forward", plan, (x,), (output, indices))
            return
        outputs = {"y": output, "indices": indices} if has_indices else {"y": output}
        steps = partial(forward_steps, has_indices=has_indices)
        try:
            if self._run(plan, steps, {"x": x}, outputs, {}):
                refuse_nan(plan) if plan.selects else refuse_overflow()
        except NotCompiledError:
            self._on_host("forward", plan, (x,), (output, indices))

    def backward(
        self, plan: PoolPlan, dy: Array, indices: Array | None, x: Array | None, dx: Array
    ) -> None:
        """Computes the gradient into C-contiguous `dx` from C-contiguous arrays."""
        if backward_launch(plan, True) is None:
            self._on_host("backward", plan, (dy, indices, x), (dx,))
            return
        inputs, residual = {"dy": dy}, residual_of(plan)
        if residual is not None:
            inputs[residual] = x if residual == "x" else indices
        try:
            is_marked = self._run(plan, backward_steps, inputs, {"dx": dx}, scratch_of(plan))
        except NotCompiledError:
            self._on_host("backward", plan, (dy, indices, x), (dx,))
            return
        if is_marked and residual == "x":
            refuse_nan(plan)
        elif is_marked:  # the host looks for the one to name
            refuse_forged(plan, _given(self._as_host(indices, self.to_host)))

    def to_host(self, array: Array) -> HostArray:
        """A copy of a device's array."""
        host = _empty_like(array)
        self._staging.download(array, host)
        return host

    def to_device(self, array: HostArray) -> Array:
        """A copy of a host's array."""
        target = self.device.empty(array.shape, array.dtype)
        self._staging.upload(np.ascontiguousarray(array), target)
        return target

    def to_positions(self, plan: PoolPlan, indices: Array, index_format: IndexFormat) -> Array:
        """Window indices on the device as int64 positions in the plane or the tensor."""
        if positions.has_kernels(plan):
            with suppress(NotCompiledError):
                return positions.to_positions(self.device, plan, indices, index_format)
        return self.to_device(to_positions(plan, self.to_host(indices), index_format))

    def from_positions(self, plan: PoolPlan, given: Array, index_format: IndexFormat) -> Array:
        """Window indices from int64 positions on the device.

        Raises:
            InvalidTensorError: a position is not that of a tap on an element of its window.
        """
        if positions.has_kernels(plan):
            with suppress(NotCompiledError):
                indices = positions.from_positions(self.device, plan, given, index_format)
                if indices is not None:
                    return indices  # else the host looks for the position to name
        return self.to_device(from_positions(plan, self.to_host(given), index_format))

    def _run(
        self,
        plan: PoolPlan,
        steps: Callable[..., Sequence[Step]],
        inputs: dict[str, Array],
        outputs: dict[str, Array],
        scratch: dict[str, np.dtype[Any]],
    ) -> bool:
        """Computes a call; returns whether a kernel left a mark.

        Args:
            scratch: the element types of arrays that kernels leave for one another on the card, of
                the shape of the forward output.
        """
        arrays = inputs | outputs
        are_on_host = isinstance(next(iter(arrays.values())), np.ndarray)  # all are where one is
        if are_on_host:
            if plan.outer:
                is_marked = self._staging.run(plan, steps, inputs, outputs, scratch)
                if is_marked is not None:
                    return is_marked
            arrays = {name: self.device.empty(a.shape, a.dtype) for name, a in arrays.items()}
        for name, dtype in scratch.items():
            arrays[name] = self.device.empty(plan.output_shape, dtype)
        if are_on_host:
            for name, array in inputs.items():
                self._staging.upload(array, arrays[name])
        addresses = 0
        for array in arrays.values():
            addresses |= self.device.address(array)
        todo = steps(plan, addresses % VECTOR_BYTES == 0)
        has_doubt = any("doubt" in names for _, names in todo)
        if has_doubt:
            arrays["doubt"] = self.device.empty((1,), np.dtype(np.int32))
            self.device.upload(np.zeros(1, np.int32), arrays["doubt"])
        for launch, names in todo:
            if launch.blocks:
                self.device.launch(launch, *[arrays.get(name) for name in names])
        if are_on_host:
            for name, array in outputs.items():
                self._staging.download(arrays[name], array)
        return has_doubt and bool(self.to_host(arrays["doubt"])[0])

    def _on_host(
        self,
        direction: str,
        plan: PoolPlan,
        inputs: tuple[Array | None, ...],
        outputs: tuple[Array | None, ...],
    ) -> None:
        what = direction, plan.mode, plan.dtype.name
        _log.info("%s of %s %s has no CUDA kernel, or none yet: NumPy", *what)
        taken = (self._as_host(array, self.to_host) for array in inputs)
        given = [self._as_host(array, _empty_like) for array in outputs]
        getattr(self._numpy, direction)(plan, *taken, *given)
        for host, array in zip(given, outputs, strict=True):
            if host is not None and host is not array:
                self.device.upload(host, array)

    @staticmethod
    def _as_host(array: Array | None, copy: Callable[[Array], HostArray]) -> HostArray | None:
        is_there = array is None or isinstance(array, np.ndarray)
        return array if is_there else copy(array)


def load() -> CupyBackend:
    """The backend, where CuPy is installed and a device answers a call with what is expected.

    Raises:
        ModuleNotFoundError: CuPy is not installed.
        ImportError: no device answers, or wrongly; the text, one line, says what is wrong.
    """
    try:
        backend = CupyBackend(CupyDevice())
        backend.probe()
    except Exception as error:  # whatever is wrong with a card, another backend can compute
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            raise
        raise ImportError(f"no CUDA device answers: {_line(error)}") from error
    return backend


def _line(error: Exception) -> str:
    """An error in one line: CuPy says some of them in boxes."""
    words = (word for word in str(error).split() if word.strip("="))
    return " ".join((f"{type(error).__name__}:", *words))


def _empty_like(array: Array) -> HostArray:
    return np.empty(array.shape, array.dtype)


def _given(thing: Given | None) -> Given:
    """What is there, as the caller knows."""
    if thing is None:
        raise AssertionError("it was there a moment ago")
    return thing
