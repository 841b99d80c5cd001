"""Custom op that pools one tensor with several layers, which is sent once.

The layers are joined: their texts with "|", their sizes in one list (see `_layer`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pooling_client._training.clients import client_of
from pooling_client.torch import _ops
from pooling_client.torch._arrays import to_array, to_tensor
from pooling_client.torch._errors import torch_errors
from pooling_client.torch._layer import (
    index_dtype,
    is_channels_last,
    needs_input,
    selects_one,
    sizes_per_axis,
    spec_of,
)


def layers_of(text: str, sizes: list[int], rank: int) -> list[tuple[str, list[int]]]:
    """Return text and sizes of each layer."""
    layers, start = [], 0
    for each in text.split("|"):
        stop = start + rank * sizes_per_axis(each)
        layers.append((each, sizes[start:stop]))
        start = stop
    return layers


@torch.library.custom_op("pooling::forward_all", mutates_args=())
def forward_all(
    x: Tensor, text: str, sizes: list[int], with_indices: bool, server: str
) -> list[Tensor]:
    """Return the output of each layer, and then the indices of those that select one element."""
    layers = layers_of(text, sizes, x.dim() - 2)
    last = is_channels_last(layers[0][0])
    flags = [with_indices and selects_one(each) for each, _ in layers]
    with torch_errors():
        specs = [spec_of(each, tuple(own)) for each, own in layers]
        results = client_of(server).forward_all(to_array(x, last), specs, return_indices=flags)
    arrays = [result.output for result in results]
    arrays += [result.indices for result in results if result.indices is not None]
    return [to_tensor(array, last, x.device) for array in arrays]


@forward_all.register_fake
def _(x: Tensor, text: str, sizes: list[int], with_indices: bool, server: str) -> list[Tensor]:
    outputs, indices = [], []
    for each, own in layers_of(text, sizes, x.dim() - 2):
        shape = _ops.output_shape(x, each, own)
        outputs.append(_ops.empty(x, shape, each, _ops.output_dtype(x, each)))
        if with_indices and selects_one(each):
            indices.append(_ops.empty(x, shape, each, index_dtype(each, own, x.shape[2:])))
    return outputs + indices


def _save(ctx: Any, inputs: Any, output: list[Tensor]) -> None:
    ctx.set_materialize_grads(False)  # no call for an output that was not used
    x, text, sizes, with_indices, ctx.server = inputs
    ctx.layers = layers_of(text, sizes, x.dim() - 2)
    ctx.shape = x.shape
    indices = output[len(ctx.layers) :]
    keeps_input = any(_needs_input(each, with_indices) for each, _ in ctx.layers)
    ctx.keeps_input, ctx.with_indices = keeps_input, with_indices
    ctx.save_for_backward(*([x] if keeps_input else []), *indices)


def _needs_input(text: str, with_indices: bool) -> bool:
    return needs_input(text) and not (with_indices and selects_one(text))


def _backward(ctx: Any, gradients: list[Tensor | None]) -> Any:
    """Add up the gradients of the layers, in their order."""
    saved = list(ctx.saved_tensors)
    x = saved.pop(0) if ctx.keeps_input else None
    total = None
    for (text, sizes), dy in zip(ctx.layers, gradients, strict=False):
        indices = saved.pop(0) if ctx.with_indices and selects_one(text) else None
        if dy is None:
            continue
        if indices is not None:
            dx = _ops.scatter(dy, indices, text, sizes, ctx.shape, ctx.server)
        elif _needs_input(text, ctx.with_indices):
            dx = _ops.input_backward(dy, x, text, sizes, ctx.server)
        else:
            dx = _ops.backward(dy, text, sizes, ctx.shape, ctx.server)
        total = dx if total is None else total + dx
    return total, None, None, None, None


forward_all.register_autograd(_backward, setup_context=_save)
