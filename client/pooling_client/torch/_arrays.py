"""Conversion between tensors and NumPy arrays, without copies on the CPU."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray

from pooling_client.torch._errors import InvalidInputError

Array = NDArray[Any]

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)
_SELECTED = (torch.bool, torch.uint16, torch.uint32, torch.uint64)
_LEGAL = {
    "max": _FLOATS + _INTEGERS + _SELECTED,
    "min": _FLOATS + _INTEGERS + _SELECTED,
    "average": _FLOATS + _INTEGERS,
    "sum": _FLOATS + _INTEGERS,
    "lp": _FLOATS,
}


def check_tensor(name: str, tensor: torch.Tensor, modes: Iterable[str]) -> None:
    """Check the type and the element type of an argument.

    Args:
        name: name of the argument.
        tensor: the argument.
        modes: modes of the layers that pool it.

    Raises:
        TypeError: it is not a tensor.
        InvalidInputError: it is not dense, or has another element type.
    """
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name} must be a tensor, not {type(tensor).__name__}")
    if not torch.compiler.is_compiling() and (transform := _transform_of(tensor)):
        raise InvalidInputError(
            f"{name} is a tensor of {transform}, which is not supported: use autograd without it, "
            "or pass a batch in place of vmap",
            field=name,
        )
    if tensor.is_nested:
        raise InvalidInputError(f"{name} is nested; it must be dense", field=name)
    if tensor.layout is not torch.strided:
        raise InvalidInputError(f"{name} is {tensor.layout}; it must be dense", field=name)
    for mode in modes:
        if tensor.dtype not in _LEGAL[mode]:
            legal = ", ".join([str(dtype).removeprefix("torch.") for dtype in _LEGAL[mode]])
            raise InvalidInputError(
                f'{name} is {tensor.dtype}; for the mode "{mode}" it must be one of {legal}',
                field=name,
            )


def _transform_of(tensor: torch.Tensor) -> str:
    """Return the name of the transform that a tensor belongs to; empty for none."""
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return "torch.func"
    unpacked = torch.autograd.forward_ad.unpack_dual(tensor)  # type: ignore[no-untyped-call]
    if unpacked.tangent is not None:
        return "forward-mode differentiation"
    return ""


def to_array(tensor: torch.Tensor, channels_last: bool) -> Array:
    """Return the elements of a tensor as a C-contiguous array.

    A tensor on the CPU in that order is not copied. One on a GPU is copied into page-locked memory.

    Args:
        tensor: tensor of shape (N, C, D1..Dn), on any device.
        channels_last: return an array of shape (N, D1..Dn, C) instead of (N, C, D1..Dn).
    """
    ordered = (tensor.movedim(1, -1) if channels_last else tensor).detach().contiguous()
    host = _to_host(ordered)
    if host.dtype is torch.bfloat16:
        bits: Array = host.view(torch.uint16).numpy()
        return bits.view(ml_dtypes.bfloat16)
    array: Array = host.numpy()
    return array


def to_tensor(array: Array, channels_last: bool, device: torch.device) -> torch.Tensor:
    """Return an array as a tensor of shape (N, C, D1..Dn); not copied on the CPU."""
    if array.dtype == ml_dtypes.bfloat16:
        tensor = torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    else:
        tensor = torch.from_numpy(array)
    if device.type == "cuda":
        tensor = tensor.pin_memory().to(device, non_blocking=True)
    elif device.type != "cpu":
        tensor = tensor.to(device)
    return tensor.movedim(-1, 1) if channels_last else tensor


def _to_host(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type != "cuda":
        return tensor.cpu()
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    pinned.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensor.device).synchronize()
    return pinned
