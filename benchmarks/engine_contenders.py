"""The engine, PyTorch and ONNX Runtime as callables of no arguments, all on the same tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from engine_floors import read_once, write_once
from engine_onnx import onnx_calls
from engine_suite import AVERAGES, BACKWARD_MAX, FORWARD_INDICES, Layer, Tensors
from torch.nn import functional

import pooling_engine

Call = Callable[[], Any]
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def contenders(tensors: Tensors, operation: str) -> dict[str, Call]:
    """All that can do an operation, by name; what cannot is left out.

    PyTorch pools channels-last rows in its channels-last memory format, which is their layout;
    ONNX Runtime has no channels last and no gradients.
    """
    is_forward = operation.startswith("forward")
    calls = (
        engine_forward(tensors, operation) if is_forward else engine_backward(tensors, operation)
    )
    is_last = tensors.layout == "NHWC"
    formats = {} if is_last else {"torch": torch.contiguous_format}
    if tensors.x.ndim in CHANNELS_LAST:
        formats["torch_channels_last"] = CHANNELS_LAST[tensors.x.ndim]
    for name, memory_format in formats.items():
        with contextlib.suppress(NotImplementedError):  # some float16 kernels
            calls[name] = torch_call(tensors, operation, memory_format)
    if is_forward and not is_last:
        calls |= onnx_calls(tensors, operation)
    calls["floor"] = read_once(tensors.x) if is_forward else write_once(tensors.dx)
    return calls


def answer(result: Any, layout: str) -> np.ndarray:
    """The output or the gradient that a contender returned, as an array of the row's layout."""
    first = result[0] if isinstance(result, (tuple, list)) else result
    if not isinstance(first, torch.Tensor):
        return first
    array = first.detach().numpy()
    return np.moveaxis(array, 1, -1) if layout == "NHWC" else array


def mode_of(operation: str) -> str:
    return "average" if operation in AVERAGES else "max"


def engine_forward(tensors: Tensors, operation: str) -> dict[str, Call]:
    x, y, spec = tensors.x, tensors.y, tensors.spec(mode_of(operation))
    has_indices = operation == FORWARD_INDICES

    def call(**options: Any) -> Call:
        return lambda: pooling_engine.forward(x, spec, return_indices=has_indices, **options)

    return {"ours": call(out=y), "ours_allocating": call(), "numpy": call(backend="numpy")}


def engine_backward(tensors: Tensors, operation: str) -> dict[str, Call]:
    dy, dx, spec = tensors.dy, tensors.dx, tensors.spec(mode_of(operation))
    residual: dict[str, Any] = {"input_shape": tensors.x.shape}
    if operation == BACKWARD_MAX:
        residual["indices"] = tensors.indices

    def call(**options: Any) -> Call:
        return lambda: pooling_engine.backward(dy, spec, **residual, **options)

    return {"ours": call(out=dx), "ours_allocating": call(), "numpy": call(backend="numpy")}


def torch_call(tensors: Tensors, operation: str, memory_format: torch.memory_format) -> Call:
    """PyTorch.

    Raises:
        NotImplementedError: it has no kernel for the operation in this element type.
    """
    x, dy = (
        as_tensor(array, tensors.layout).contiguous(memory_format=memory_format)
        for array in (tensors.x, tensors.dy)
    )
    pool = torch_pool(tensors.layer, operation)
    if operation.startswith("forward"):
        pool(x[:1])
        return lambda: pool(x)
    torch_gradient(pool, x[:1], dy[:1])()
    return torch_gradient(pool, x, dy)


def torch_gradient(pool: Callable[..., Any], x: torch.Tensor, dy: torch.Tensor) -> Call:
    """Pulls a gradient back, again and again, through one prepared graph."""
    leaf = x.detach().requires_grad_()
    output = pool(leaf)
    return lambda: torch.autograd.grad(output, leaf, dy, retain_graph=True)


def as_tensor(array: np.ndarray, layout: str) -> torch.Tensor:
    """The array's own memory, channels first in name."""
    tensor = torch.from_numpy(array)
    return tensor.movedim(-1, 1) if layout == "NHWC" else tensor


def torch_pool(layer: Layer, operation: str) -> Callable[[torch.Tensor], Any]:
    """The function of PyTorch for a layer; global windows are adaptive ones with one output."""
    name = "avg" if operation in AVERAGES else "max"
    more = {"return_indices": True} if operation == FORWARD_INDICES else {}
    rank = len(layer.shape) - 2
    if layer.kernel:
        pool = getattr(functional, f"{name}_pool{rank}d")
        return lambda x: pool(x, layer.kernel, layer.stride, layer.padding, **more)
    pool = getattr(functional, f"adaptive_{name}_pool{rank}d")
    return lambda x: pool(x, layer.adaptive or 1, **more)
