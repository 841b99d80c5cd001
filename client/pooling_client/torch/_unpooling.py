"""Unpooling: the input gradient of max pooling, with values in place of the gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pooling_client._training.clients import check_server
from pooling_client.torch import _arguments, _ops
from pooling_client.torch._calling import batched, sliding, with_layout
from pooling_client.torch._errors import InvalidInputError


def unpool(
    values: Tensor,
    indices: Tensor,
    rank: int,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    output_size: Any,
    server: str | None,
) -> Tensor:
    """Place values at int64 indices; see `torch.nn.functional.max_unpool2d`.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: `output_size` is out of range, or a tensor is invalid (`InvalidInputError`).
    """
    _check(values, indices)
    x, is_single = batched(values, rank, ["max"])
    _, sizes = sliding({}, rank, kernel_size, stride, padding)
    shape = _output_shape(x, sizes, output_size)
    for axis in range(rank):
        _fit_padding(sizes, axis, x.shape[2 + axis], shape[axis])
    text = with_layout({"mode": "max", "window": "sliding"}, x)
    places = indices.unsqueeze(0) if is_single else indices
    full = [x.shape[0], x.shape[1], *shape]
    result: Tensor = _ops.scatter(x, places, text, sizes, full, check_server(server))
    return result.squeeze(0) if is_single else result


def _check(values: Tensor, indices: Tensor) -> None:
    for name, tensor in (("input", values), ("indices", indices)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor, not {type(tensor).__name__}")
    if not values.is_floating_point():
        raise InvalidInputError(
            f"input is {values.dtype}; it must be floating-point", field="input"
        )
    if indices.dtype is not torch.int64:
        raise InvalidInputError(
            f"indices are {indices.dtype}; they must be torch.int64", field="indices"
        )
    if indices.device != values.device:
        raise InvalidInputError(
            f"indices are on {indices.device}, but input is on {values.device}", field="indices"
        )
    if indices.shape != values.shape:
        raise InvalidInputError(
            f"indices have the shape {tuple(indices.shape)}, but input has {tuple(values.shape)}",
            field="indices",
        )


def _output_shape(x: Tensor, sizes: list[int], output_size: Any) -> list[int]:
    """Return the spatial sizes of the result, as PyTorch derives and checks them."""
    rank = x.dim() - 2
    smallest = []
    for axis in range(rank):
        kernel, stride, _, before, _ = sizes[5 * axis : 5 * axis + 5]
        smallest.append((x.shape[2 + axis] - 1) * stride + kernel - 2 * before)
    if output_size is None:
        return smallest
    try:
        given = list(output_size)
    except TypeError:
        text = f"output_size must be a sequence of integers, not {output_size!r}"
        raise TypeError(text) from None
    if len(given) not in (rank, rank + 2):
        legal = f"{rank} or {rank + 2}"
        raise ValueError(f"output_size has {len(given)} sizes; it must have {legal}")
    given = given[-rank:]
    for axis in range(rank):
        stride = sizes[5 * axis + 1]
        low, high = smallest[axis] - stride, smallest[axis] + stride
        if not low < _arguments.integer("output_size", given[axis]) < high:
            raise ValueError(
                f"output_size[{axis}] is {given[axis]}; it must be between {low} and {high}, "
                "both excluded"
            )
    return given


def _fit_padding(sizes: list[int], axis: int, windows: int, size: int) -> None:
    """Choose the padding after an axis so that exactly `windows` windows fit."""
    kernel, stride, _, before, _ = sizes[5 * axis : 5 * axis + 5]
    missing = (windows - 1) * stride + kernel - before - size
    sizes[5 * axis + 4] = max(0, missing)
