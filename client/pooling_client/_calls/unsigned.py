"""Max and min of bool, uint16, uint32 and uint64, sent as types of the contract in the same order.

Flipping the highest bit maps unsigned integers to signed ones of the same width and keeps their
order, so the selected elements and the indices are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pooling_client._calls.forward import PreparedForward
from pooling_engine import (
    ForwardAllCall,
    ForwardCall,
    ForwardResult,
    InvalidTensorError,
    Mode,
    PoolSpec,
)
from pooling_engine.calls import as_tensor, check_out, forward_all_call

Array = NDArray[Any]
_SENT_AS = {"bool": "uint8", "uint16": "int16", "uint32": "int32", "uint64": "int64"}


class UnsignedForward(NamedTuple):
    """A forward call whose input is sent as another type.

    Attributes:
        prepared: the call that is sent.
        out: array of the caller for the output, or None.
        dtype: element type of the input of the caller.
    """

    prepared: PreparedForward
    out: Array | None
    dtype: np.dtype[Any]

    def restored(self, result: ForwardResult) -> ForwardResult:
        """Return the result with the output in the type of the input."""
        output = _restored(result.output, self.dtype)
        if self.out is not None:
            np.copyto(self.out, output)
            output = self.out
        return ForwardResult(output, result.indices)


class UnsignedForwardAll(NamedTuple):
    """A forward call of several layers whose input is sent as another type.

    Attributes:
        call: the call that is sent.
        dtype: element type of the input of the caller.
    """

    call: ForwardAllCall
    dtype: np.dtype[Any]

    def restored(self, results: Sequence[ForwardResult]) -> tuple[ForwardResult, ...]:
        """Return the results with the outputs in the type of the input."""
        return tuple(
            ForwardResult(_restored(each.output, self.dtype), each.indices) for each in results
        )


def unsigned_forward(
    error: InvalidTensorError,
    x: ArrayLike,
    spec: PoolSpec,
    return_indices: bool,
    index_format: str,
    out: Array | None,
) -> UnsignedForward:
    """Return the call for an input of bool, uint16, uint32 or uint64 whose mode is max or min.

    Args:
        error: the error of such a call without this conversion.
        x: the input.
        spec: pooling layer.
        return_indices: return indices.
        index_format: format of the indices.
        out: array of the type of the input for the output, or None.

    Raises:
        InvalidSpecError: the options are invalid or do not fit the tensor.
        InvalidTensorError: `error`, for other inputs; or `out` does not fit.
    """
    tensor, bits = _as_sent(error, x, [spec])
    prepared = PreparedForward(ForwardCall(bits, spec, return_indices, index_format))
    out = check_out(out, prepared.call.plan.output_shape, tensor.dtype, tensor)
    return UnsignedForward(prepared, out, tensor.dtype)


def unsigned_forward_all(
    error: InvalidTensorError,
    x: ArrayLike,
    specs: Sequence[PoolSpec],
    return_indices: bool | Sequence[bool],
    index_format: str,
) -> UnsignedForwardAll:
    """Return the call of several layers as `unsigned_forward` does for one.

    Raises:
        InvalidSpecError: the options are invalid or do not fit the tensor.
        InvalidTensorError: `error`, for other inputs, or if a mode is neither max nor min.
    """
    tensor, bits = _as_sent(error, x, specs)
    return UnsignedForwardAll(
        forward_all_call(bits, specs, return_indices, index_format), tensor.dtype
    )


def _as_sent(
    error: InvalidTensorError, x: ArrayLike, specs: Sequence[PoolSpec]
) -> tuple[Array, Array]:
    """Return the input as an array, and as the array that is sent; or raise the error."""
    selects = all(getattr(spec, "mode", None) in (Mode.MAX, Mode.MIN) for spec in specs)
    if error.field != "input" or not selects:
        raise error
    tensor = as_tensor(x, "input")
    if tensor.dtype.name not in _SENT_AS:
        raise error
    return tensor, _flipped(tensor.view(_SENT_AS[tensor.dtype.name]))


def _restored(output: Array, dtype: np.dtype[Any]) -> Array:
    return _flipped(output, out=output).view(dtype)


def _flipped(array: Array, out: Array | None = None) -> Array:
    """Return the array with the highest bit of each element flipped; uint8 stays as it is."""
    if array.dtype == np.uint8:
        return array
    lowest = array.dtype.type(np.iinfo(array.dtype).min)
    flipped: Array = np.bitwise_xor(array, lowest, out=out)
    return flipped
