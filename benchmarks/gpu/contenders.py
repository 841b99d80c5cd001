"""Contenders: calls of the engine, PyTorch and a device copy on tensors of one GPU."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch

import pooling_engine
from benchmarks.engine import torch_layers as engine_torch
from benchmarks.engine.suite import BACKWARD_MAX, FORWARD_INDICES, Layer, Tensors, mode_of
from benchmarks.engine.torch_layers import Call
from benchmarks.gpu.device import Device
from pooling_engine.backends import select_backend
from pooling_engine.calls import arrays_of


class DeviceTensors(Tensors):
    """PyTorch tensors of one layer on a GPU; the engine gets views of them."""

    def __init__(self, device: Device, layer: Layer, dtype: str, layout: str) -> None:
        self.gpu = device
        super().__init__(layer, dtype, layout)

    @cached_property
    def indices(self) -> Any:
        """Indices of the selected elements of max pooling, from the engine."""
        x, spec = self.gpu.native(self.x), self.spec("max")
        options = {"return_indices": True, "backend": self.gpu.backend}
        return pooling_engine.forward(x, spec, **options).indices

    @cached_property
    def y(self) -> torch.Tensor:
        """Tensor for the output."""
        return torch.zeros_like(self.dy)

    @cached_property
    def dx(self) -> torch.Tensor:
        """Tensor for the gradient of the input."""
        return torch.zeros_like(self.x)

    def moved_bytes(self, operation: str) -> int:
        """Return the bytes that an operation must read or write, each once."""
        size = self.x.nbytes + self.dy.nbytes
        if operation in (FORWARD_INDICES, BACKWARD_MAX):
            size += self.plan.index_dtype.itemsize * self.dy.numel()
        return size

    def channels_first(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a view with a channels-first shape, in any memory order."""
        return tensor.movedim(-1, 1) if self.layout == "NHWC" else tensor

    def _normal(self, seed: int, shape: tuple[int, ...]) -> torch.Tensor:
        source = torch.Generator(self.gpu.device).manual_seed(seed)
        dtype = getattr(torch, self.dtype.name)
        options = {"generator": source, "device": self.gpu.device, "dtype": dtype}
        values = torch.randn(shape, **options)
        return values.movedim(1, -1).contiguous() if self.layout == "NHWC" else values


def contenders(tensors: DeviceTensors, operation: str) -> tuple[dict[str, Call], dict[str, str]]:
    """Return the contenders of an operation, and the reasons of PyTorch contenders that fail.

    Operations without a PyTorch kernel have neither.
    """
    is_forward = operation.startswith("forward")
    calls = {"ours": (engine_forward if is_forward else engine_backward)(tensors, operation)}
    x, dy = map(tensors.channels_first, (tensors.x, tensors.dy))
    unable = {}
    for name, memory_format in engine_torch.formats(tensors.layer, tensors.layout).items():
        try:
            call = engine_torch.torch_call(tensors.layer, operation, x, dy, memory_format)
            call()  # with all tensors: memory may not suffice
        except NotImplementedError:
            continue
        except RuntimeError as error:
            unable[name] = str(error).partition("\n")[0]
        else:
            calls[name] = call
    return calls | {"copy": copy_of(tensors, operation)}, unable


def engine_forward(tensors: DeviceTensors, operation: str) -> Call:
    native, has_indices = tensors.gpu.native, operation == FORWARD_INDICES
    x, y, spec = native(tensors.x), native(tensors.y), tensors.spec(mode_of(operation))
    results, backend = {"output": y}, tensors.gpu.backend
    if has_indices:
        results["indices"] = tensors.indices

    def call() -> Any:
        arrays = arrays_of(x, select_backend(backend))
        forward = pooling_engine.ForwardCall(x, spec, has_indices, arrays=arrays)
        return pooling_engine.run(forward, results, backend=backend)

    return call


def engine_backward(tensors: DeviceTensors, operation: str) -> Call:
    native = tensors.gpu.native
    dy, dx, spec = native(tensors.dy), native(tensors.dx), tensors.spec(mode_of(operation))
    options = {"input_shape": tuple(tensors.x.shape), "out": dx, "backend": tensors.gpu.backend}
    if operation == BACKWARD_MAX:
        options["indices"] = tensors.indices
    return lambda: pooling_engine.backward(dy, spec, **options)


def copy_of(tensors: DeviceTensors, operation: str) -> Call:
    """Return a device copy that moves as many bytes as the operation must move.

    Its size is a multiple of 16 bytes; other sizes would need another or a slower kernel.
    """
    size = max(1, tensors.moved_bytes(operation) // 32) * 16
    source, target = (
        torch.full((size,), byte, dtype=torch.uint8, device=tensors.gpu.device) for byte in (1, 2)
    )
    return lambda: target.copy_(source)


def answer(tensors: DeviceTensors, result: Any) -> torch.Tensor:
    """Return the result of PyTorch in the row's layout."""
    tensor = result[0] if isinstance(result, tuple) else result
    return tensor.detach().movedim(1, -1) if tensors.layout == "NHWC" else tensor.detach()
