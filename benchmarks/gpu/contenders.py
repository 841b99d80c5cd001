"""The engine, PyTorch and a bare copy as callables of no arguments, on tensors of one card."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch

import pooling_engine
from benchmarks.engine import torch_layers as engine_torch
from benchmarks.engine.suite import BACKWARD_MAX, FORWARD_INDICES, Layer, Tensors, mode_of
from benchmarks.engine.torch_layers import Call
from benchmarks.gpu.card import Card


class CardTensors(Tensors):
    """As on the host, but PyTorch's; `out` and `indices` are views for the engine."""

    def __init__(self, card: Card, layer: Layer, dtype: str, layout: str) -> None:
        self.card = card
        super().__init__(layer, dtype, layout)

    @cached_property
    def indices(self) -> Any:
        """The elements that the maximum selects, as the engine says."""
        x, spec = self.card.native(self.x), self.spec("max")
        options = {"return_indices": True, "backend": self.card.backend}
        return pooling_engine.forward(x, spec, **options).indices

    @cached_property
    def y(self) -> torch.Tensor:
        """Where outputs are written to."""
        return torch.zeros_like(self.dy)

    @cached_property
    def dx(self) -> torch.Tensor:
        """Where gradients of the input are written to."""
        return torch.zeros_like(self.x)

    def moved_bytes(self, operation: str) -> int:
        """The bytes that an operation must read or write, each once."""
        size = self.x.nbytes + self.dy.nbytes
        if operation in (FORWARD_INDICES, BACKWARD_MAX):
            size += self.plan.index_dtype.itemsize * self.dy.numel()
        return size

    def channels_first(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor as PyTorch has it: channels first in name, in whatever order in memory."""
        return tensor.movedim(-1, 1) if self.layout == "NHWC" else tensor

    def _normal(self, seed: int, shape: tuple[int, ...]) -> torch.Tensor:
        source = torch.Generator(self.card.device).manual_seed(seed)
        dtype = getattr(torch, self.dtype.name)
        options = {"generator": source, "device": self.card.device, "dtype": dtype}
        values = torch.randn(shape, **options)
        return values.movedim(1, -1).contiguous() if self.layout == "NHWC" else values


def contenders(tensors: CardTensors, operation: str) -> tuple[dict[str, Call], dict[str, str]]:
    """All that can do an operation, by name; and those of PyTorch that fail, with the reason.

    What PyTorch has no kernel for is left out.
    """
    is_forward = operation.startswith("forward")
    calls = {"ours": (engine_forward if is_forward else engine_backward)(tensors, operation)}
    x, dy = map(tensors.channels_first, (tensors.x, tensors.dy))
    unable = {}
    for name, memory_format in engine_torch.formats(tensors.layer, tensors.layout).items():
        try:
            call = engine_torch.torch_call(tensors.layer, operation, x, dy, memory_format)
            call()  # with all of the tensors: it may have no room for them
        except NotImplementedError:
            continue
        except RuntimeError as error:
            unable[name] = str(error).partition("\n")[0]
        else:
            calls[name] = call
    return calls | {"copy": copy_of(tensors, operation)}, unable


def engine_forward(tensors: CardTensors, operation: str) -> Call:
    native, has_indices = tensors.card.native, operation == FORWARD_INDICES
    x, y, spec = native(tensors.x), native(tensors.y), tensors.spec(mode_of(operation))
    out = (y, tensors.indices) if has_indices else y
    options = {"return_indices": has_indices, "out": out, "backend": tensors.card.backend}
    return lambda: pooling_engine.forward(x, spec, **options)


def engine_backward(tensors: CardTensors, operation: str) -> Call:
    native = tensors.card.native
    dy, dx, spec = native(tensors.dy), native(tensors.dx), tensors.spec(mode_of(operation))
    options = {"input_shape": tuple(tensors.x.shape), "out": dx, "backend": tensors.card.backend}
    if operation == BACKWARD_MAX:
        options["indices"] = tensors.indices
    return lambda: pooling_engine.backward(dy, spec, **options)


def copy_of(tensors: CardTensors, operation: str) -> Call:
    """Copies on the card what is half of the bytes that the operation must move.

    In whole packs of 16 bytes: an odd end would be another kernel, or a slower one.
    """
    size = max(1, tensors.moved_bytes(operation) // 32) * 16
    source, target = (
        torch.full((size,), byte, dtype=torch.uint8, device=tensors.card.device) for byte in (1, 2)
    )
    return lambda: target.copy_(source)


def answer(tensors: CardTensors, result: Any) -> torch.Tensor:
    """What PyTorch returned, in the row's layout."""
    tensor = result[0] if isinstance(result, tuple) else result
    return tensor.detach().movedim(1, -1) if tensors.layout == "NHWC" else tensor.detach()
