"""PyTorch contenders on any device: two memory formats, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from benchmarks.engine.suite import AVERAGES, FORWARD_INDICES, Layer

Call = Callable[[], Any]
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def formats(layer: Layer, layout: str) -> dict[str, torch.memory_format]:
    """Return the memory formats that PyTorch supports for a layer, by contender.

    Channels-last rows use the channels-last format only.
    """
    every = {} if layout == "NHWC" else {"torch": torch.contiguous_format}
    if len(layer.shape) in CHANNELS_LAST:
        every["torch_channels_last"] = CHANNELS_LAST[len(layer.shape)]
    return every


def torch_call(
    layer: Layer,
    operation: str,
    x: torch.Tensor,
    dy: torch.Tensor,
    memory_format: torch.memory_format,
) -> Call:
    """Return a PyTorch call on tensors with channels-first shapes.

    Raises:
        NotImplementedError: PyTorch has no kernel for the operation in this element type.
    """
    x, dy = (tensor.contiguous(memory_format=memory_format) for tensor in (x, dy))
    pool = torch_pool(layer, operation)
    if operation.startswith("forward"):
        pool(x[:1])
        return lambda: pool(x)
    torch_gradient(pool, x[:1], dy[:1])()
    return torch_gradient(pool, x, dy)


def torch_gradient(pool: Callable[..., Any], x: torch.Tensor, dy: torch.Tensor) -> Call:
    """Return a call that computes the gradient through one prepared graph."""
    leaf = x.detach().requires_grad_()
    output = pool(leaf)
    return lambda: torch.autograd.grad(output, leaf, dy, retain_graph=True)


def torch_pool(layer: Layer, operation: str) -> Callable[[torch.Tensor], Any]:
    """Return the PyTorch function of a layer; a global window is adaptive with one output.

    Raises:
        NotImplementedError: the padding before and after an axis differs.
    """
    before, after = layer.pads()
    if before != after:
        raise NotImplementedError("PyTorch pads both ends of an axis alike")
    name = "avg" if operation in AVERAGES else "max"
    more: dict[str, bool] = {"return_indices": True} if operation == FORWARD_INDICES else {}
    rank = len(layer.shape) - 2
    if layer.kernel:
        if operation in AVERAGES:
            more = {"count_include_pad": layer.counts_padding}
        pool = getattr(functional, f"{name}_pool{rank}d")
        return lambda x: pool(x, layer.kernel, layer.stride, before, **more)
    pool = getattr(functional, f"adaptive_{name}_pool{rank}d")
    return lambda x: pool(x, layer.adaptive or 1, **more)
