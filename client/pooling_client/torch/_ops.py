"""Custom ops of the namespace `pooling`: the calls of a server that autograd differentiates.

The ops are closed under differentiation, so gradients of every order exist:

    forward  <->  backward     "average" and "sum"
    select    ->  scatter      "max" and "min"; scatter is also unpooling
    scatter  <->  gather

`input_backward` is the gradient that needs the input ("lp", and shared gradients of ties); it has
no derivative. Every op but `gather` is one call of a server.

Tensors have shape (N, C, D1..Dn). `text` and `sizes` are the layer: see `_layer`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pooling_client._training.clients import client_of
from pooling_client.torch._arrays import to_array, to_tensor
from pooling_client.torch._errors import torch_errors
from pooling_client.torch._layer import (
    index_dtype,
    is_channels_last,
    needs_input,
    output_sizes,
    plane_positions,
    spec_of,
)


@torch.library.custom_op("pooling::forward", mutates_args=())
def forward(x: Tensor, text: str, sizes: list[int], server: str) -> Tensor:
    """Pool a tensor."""
    last = is_channels_last(text)
    with torch_errors():
        spec = spec_of(text, tuple(sizes))
        result = client_of(server).forward(to_array(x, last), spec)
    return to_tensor(result.output, last, x.device)


@torch.library.custom_op("pooling::select", mutates_args=())
def select(x: Tensor, text: str, sizes: list[int], server: str) -> tuple[Tensor, Tensor]:
    """Pool a tensor with "max" or "min"; return the output and window indices."""
    last = is_channels_last(text)
    with torch_errors():
        spec = spec_of(text, tuple(sizes))
        result = client_of(server).forward(to_array(x, last), spec, return_indices=True)
    assert result.indices is not None
    output, indices = result.output, result.indices
    return to_tensor(output, last, x.device), to_tensor(indices, last, x.device)


@torch.library.custom_op("pooling::backward", mutates_args=())
def backward(dy: Tensor, text: str, sizes: list[int], shape: list[int], server: str) -> Tensor:
    """Return the input gradient of "average" and "sum"."""
    return _backward(dy, text, sizes, shape, server)


@torch.library.custom_op("pooling::scatter", mutates_args=())
def scatter(
    values: Tensor, indices: Tensor, text: str, sizes: list[int], shape: list[int], server: str
) -> Tensor:
    """Add each value to the element that its index selects: the input gradient, or unpooling."""
    array = to_array(indices, is_channels_last(text))
    return _backward(values, text, sizes, shape, server, indices=array)


@torch.library.custom_op("pooling::input_backward", mutates_args=())
def input_backward(dy: Tensor, x: Tensor, text: str, sizes: list[int], server: str) -> Tensor:
    """Return the input gradient of a layer that needs the input."""
    array = to_array(x, is_channels_last(text))
    return _backward(dy, text, sizes, x.shape, server, input=array)


@torch.library.custom_op("pooling::gather", mutates_args=())
def gather(values: Tensor, indices: Tensor, text: str, sizes: list[int], server: str) -> Tensor:
    """Return the selected element of each window; 0 for none. Computed in this process."""
    positions = plane_positions(indices, text, sizes, values.shape[2:]).flatten(2)
    taken = values.flatten(2).gather(2, positions.clamp(min=0))
    result = taken.masked_fill_(positions < 0, 0).reshape(indices.shape)
    if is_channels_last(text):
        return result.movedim(1, -1).contiguous().movedim(-1, 1)
    return result


def _backward(
    dy: Tensor, text: str, sizes: list[int], shape: Any, server: str, **residual: Any
) -> Tensor:
    """Return an input gradient, given indices, the input, or neither."""
    last = is_channels_last(text)
    batch, channels, *spatial = shape
    with torch_errors():
        result = client_of(server).backward(
            to_array(dy, last),
            spec_of(text, tuple(sizes)),
            input_shape=(batch, *spatial, channels) if last else (batch, channels, *spatial),
            **residual,
        )
    return to_tensor(result, last, dy.device)


# Shapes, strides and element types without the elements, for tracing. Sizes may be symbolic.


def empty(like: Tensor, shape: Any, text: str, dtype: torch.dtype | None = None) -> Tensor:
    """Return an uninitialised tensor in the memory format of a layer."""
    if not is_channels_last(text):
        return like.new_empty(shape, dtype=dtype)
    batch, channels, *spatial = shape
    return like.new_empty((batch, *spatial, channels), dtype=dtype).movedim(-1, 1)


def output_shape(x: Tensor, text: str, sizes: list[int]) -> list[int]:
    """Return the shape of the output of a layer."""
    return [*x.shape[:2], *output_sizes(text, sizes, x.shape[2:])]


def output_dtype(x: Tensor, text: str) -> torch.dtype:
    """Return the element type of the output of a layer."""
    if x.is_floating_point():
        return x.dtype
    if "mode=sum" in text:
        return torch.int64
    if "mode=average" in text:
        return torch.float64 if x.dtype is torch.int64 else torch.float32
    return x.dtype


@forward.register_fake
def _(x: Tensor, text: str, sizes: list[int], server: str) -> Tensor:
    return empty(x, output_shape(x, text, sizes), text, output_dtype(x, text))


@select.register_fake
def _(x: Tensor, text: str, sizes: list[int], server: str) -> tuple[Tensor, Tensor]:
    shape = output_shape(x, text, sizes)
    indices = empty(x, shape, text, index_dtype(text, sizes, x.shape[2:]))
    return empty(x, shape, text), indices


@backward.register_fake
def _(dy: Tensor, text: str, sizes: list[int], shape: list[int], server: str) -> Tensor:
    return empty(dy, shape, text)


@scatter.register_fake
def _(
    values: Tensor, indices: Tensor, text: str, sizes: list[int], shape: list[int], server: str
) -> Tensor:
    return empty(values, shape, text)


@input_backward.register_fake
def _(dy: Tensor, x: Tensor, text: str, sizes: list[int], server: str) -> Tensor:
    return empty(dy, x.shape, text)


@gather.register_fake
def _(values: Tensor, indices: Tensor, text: str, sizes: list[int], server: str) -> Tensor:
    return empty(values, indices.shape, text)


# Derivatives. Each is an op again, so it can be differentiated and compiled.


def _save_forward(ctx: Any, inputs: Any, output: Any) -> None:
    x, *ctx.layer = inputs
    ctx.shape = x.shape
    if needs_input(ctx.layer[0]):
        ctx.save_for_backward(x)


def _forward_backward(ctx: Any, dy: Tensor) -> Any:
    text, sizes, server = ctx.layer
    if ctx.saved_tensors:
        return input_backward(dy, *ctx.saved_tensors, text, sizes, server), None, None, None
    return backward(dy, text, sizes, ctx.shape, server), None, None, None


def _save_select(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.set_materialize_grads(False)  # no array of zeros as the gradient of the indices
    x, *ctx.layer = inputs
    ctx.shape = x.shape
    ctx.save_for_backward(output[1])


def _select_backward(ctx: Any, dy: Tensor | None, _: Any) -> Any:
    if dy is None:
        return None, None, None, None
    text, sizes, server = ctx.layer
    return scatter(dy, *ctx.saved_tensors, text, sizes, ctx.shape, server), None, None, None


def _save_backward(ctx: Any, inputs: Any, output: Any) -> None:
    _, ctx.text, ctx.sizes, _, ctx.server = inputs


def _backward_backward(ctx: Any, ddx: Tensor) -> Any:
    return forward(ddx, ctx.text, ctx.sizes, ctx.server), None, None, None, None


def _save_scatter(ctx: Any, inputs: Any, output: Any) -> None:
    _, indices, ctx.text, ctx.sizes, _, ctx.server = inputs
    ctx.save_for_backward(indices)


def _scatter_backward(ctx: Any, ddx: Tensor) -> Any:
    gradient = gather(ddx, *ctx.saved_tensors, ctx.text, ctx.sizes, ctx.server)
    return gradient, None, None, None, None, None


def _save_gather(ctx: Any, inputs: Any, output: Any) -> None:
    values, indices, *ctx.layer = inputs
    ctx.shape = values.shape
    ctx.save_for_backward(indices)


def _gather_backward(ctx: Any, dy: Tensor) -> Any:
    text, sizes, server = ctx.layer
    gradient = scatter(dy, *ctx.saved_tensors, text, sizes, ctx.shape, server)
    return gradient, None, None, None, None


def _no_second_derivative(ctx: Any, ddx: Tensor) -> Any:
    raise NotImplementedError(
        "second derivatives exist for max, min, average and sum, "
        'not for lp or tie_policy "all" and "split"'
    )


forward.register_autograd(_forward_backward, setup_context=_save_forward)
select.register_autograd(_select_backward, setup_context=_save_select)
backward.register_autograd(_backward_backward, setup_context=_save_backward)
scatter.register_autograd(_scatter_backward, setup_context=_save_scatter)
gather.register_autograd(_gather_backward, setup_context=_save_gather)
input_backward.register_autograd(_no_second_derivative)
