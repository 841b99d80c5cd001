"""Arrays of other libraries as NumPy arrays, without a copy where that is possible."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pooling_engine.dtypes import BFLOAT16
from pooling_engine.errors import InvalidTensorError

Array = NDArray[Any]


def as_array(array: Any, field: str) -> Array:
    """Return anything that holds numbers as a NumPy array.

    Args:
        array: a NumPy array or list, a tensor of PyTorch on the CPU, or an array of a library that
            implements NumPy's protocols or DLPack.
        field: name of the argument, for errors.

    Raises:
        InvalidTensorError: it holds no numbers, or its meaning would be lost: a masked array, or a
            tensor that requires a gradient.
    """
    if isinstance(array, np.ma.MaskedArray):
        raise InvalidTensorError(
            f"{field} is a masked array, and its mask would be ignored; "
            f"pass {field}.filled(...) with a value for the masked elements",
            field=field,
        )
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        return _of_torch(array, torch, field)
    try:
        tensor = np.asarray(array)
        if tensor.dtype.hasobject and tensor.ndim == 0 and hasattr(array, "__dlpack__"):
            tensor = np.from_dlpack(array)
    except (BufferError, TypeError, ValueError, RuntimeError) as error:
        raise InvalidTensorError(f"{field} is not an array: {error}", field=field) from None
    if tensor.dtype.hasobject or tensor.dtype.names:
        raise InvalidTensorError(f"{field} holds {tensor.dtype}, not numbers", field=field)
    return tensor


def as_out(out: Any) -> Any:
    """Return an array that shares the memory of `out`, if `out` is a tensor on the CPU.

    Raises:
        InvalidTensorError: it is a masked array, or a tensor that cannot be written into.
    """
    torch = sys.modules.get("torch")
    is_tensor = torch is not None and isinstance(out, torch.Tensor)
    if is_tensor or isinstance(out, np.ma.MaskedArray):
        return as_array(out, "out")
    return out


def _of_torch(tensor: Any, torch: Any, field: str) -> Array:
    if tensor.requires_grad:
        raise InvalidTensorError(
            f"{field} requires a gradient, which this call does not record; "
            f"pass {field}.detach(), or use the layers of pooling_client.torch",
            field=field,
        )
    if tensor.device.type != "cpu":
        raise InvalidTensorError(
            f"{field} is on device {tensor.device}; pass {field}.cpu()", field=field
        )
    if tensor.layout is not torch.strided:
        raise InvalidTensorError(
            f"{field} is {tensor.layout}; pass {field}.to_dense()", field=field
        )
    try:
        if tensor.dtype is not torch.bfloat16:
            array: Array = tensor.numpy()
            return array
        if BFLOAT16 is None:
            raise InvalidTensorError(
                f"{field} is bfloat16, which needs the package ml_dtypes", field=field
            )
        bits: Array = tensor.view(torch.int16).numpy()
        return bits.view(BFLOAT16)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidTensorError(f"{field} is not an array: {error}", field=field) from None
