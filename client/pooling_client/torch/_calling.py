"""Calls of the custom ops: batch axis, memory format, and the op that the gradient needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from pooling_client._training.clients import check_server
from pooling_client.torch import _arguments, _ops
from pooling_client.torch._arrays import check_tensor
from pooling_client.torch._errors import InvalidInputError, InvalidOptionError
from pooling_client.torch._layer import plane_positions

_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
_AXES = {1: "L", 2: "H, W", 3: "D, H, W"}


def sliding(
    options: dict[str, Any],
    rank: int,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any = 1,
) -> tuple[dict[str, Any], list[int]]:
    """Return the options and sizes of a layer with sliding windows."""
    options = {"window": "sliding", **options}
    kernels = _arguments.sizes("kernel_size", kernel_size, rank)
    is_default = stride is None or (isinstance(stride, list | tuple) and len(stride) == 0)
    strides = kernels if is_default else _arguments.sizes("stride", stride, rank)
    dilations = _arguments.sizes("dilation", dilation, rank)
    if isinstance(padding, str):
        options["padding"] = padding
        padding = 0
    before, after = _arguments.paddings(padding, rank)
    sizes = []
    for axis in range(rank):
        sizes += [kernels[axis], strides[axis], dilations[axis], before[axis], after[axis]]
    return options, sizes


def batched(
    input: Tensor,  # noqa: A002
    rank: int,
    modes: Iterable[str],
) -> tuple[Tensor, bool]:
    """Return a tensor with a batch axis, and whether it was added.

    Args:
        input: tensor with or without a batch axis.
        rank: number of spatial axes.
        modes: modes of the layers that pool it.

    Raises:
        TypeError: `input` is not a tensor.
        InvalidInputError: it has another number of axes, or an element type without a kernel.
    """
    check_tensor("input", input, modes)
    if input.dim() == rank + 1:
        return input.unsqueeze(0), True
    if input.dim() != rank + 2:
        raise InvalidInputError(
            f"input has {input.dim()} axes; it must have the shape (N, C, {_AXES[rank]}) "
            f"or (C, {_AXES[rank]})",
            field="input",
        )
    return input, False


def with_layout(options: dict[str, Any], x: Tensor) -> str:
    """Return the text of the options for the memory format of a batched tensor."""
    memory_format = _LAST.get(x.dim())
    is_last = memory_format is not None and x.is_contiguous(memory_format=memory_format)
    if is_last and not x.is_contiguous():
        return _arguments.text_of({**options, "layout": "channels_last"})
    return _arguments.text_of(options)


def pool(
    input: Tensor,  # noqa: A002
    rank: int,
    options: dict[str, Any],
    sizes: list[int],
    server: str | None,
) -> Tensor:
    """Return the pooled tensor. Request window indices only if the gradient needs them.

    Args:
        input: tensor of shape (N, C, D1..Dn) or (C, D1..Dn).
        rank: number of spatial axes.
        options: options of the layer.
        sizes: sizes of the layer.
        server: target of the server, or None for the default.
    """
    x, is_single = batched(input, rank, [options["mode"]])
    text, target = with_layout(options, x), check_server(server)
    has_indices = options["mode"] in ("max", "min") and not _shares_ties(options)
    output: Tensor
    if has_indices and x.requires_grad and torch.is_grad_enabled():
        output = _ops.select(x, text, sizes, target)[0]
    else:
        output = _ops.forward(x, text, sizes, target)
    return output.squeeze(0) if is_single else output


def pool_with_indices(
    input: Tensor,  # noqa: A002
    rank: int,
    options: dict[str, Any],
    sizes: list[int],
    server: str | None,
) -> tuple[Tensor, Tensor]:
    """Return the pooled tensor, and indices in PyTorch's format; arguments as of `pool`.

    Raises:
        InvalidOptionError: a window may select several elements.
    """
    x, is_single = batched(input, rank, [options["mode"]])
    text, target = with_layout(options, x), check_server(server)
    if _shares_ties(options):
        raise InvalidOptionError(
            'return_indices needs tie_policy "first": other policies select several elements',
            field="return_indices",
        )
    output, windows = _ops.select(x, text, sizes, target)
    indices = plane_positions(windows, text, sizes, x.shape[2:])
    return (output.squeeze(0), indices.squeeze(0)) if is_single else (output, indices)


def _shares_ties(options: dict[str, Any]) -> bool:
    tie_policy: str = options.get("tie_policy", "first")
    return tie_policy != "first"
