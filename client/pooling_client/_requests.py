"""What both clients do before and after the wire: check and encode, decode and hand over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import pooling_wire
from pooling_engine import ForwardResult, PoolSpec
from pooling_engine.checks import (
    as_tensor,
    check_index_format,
    check_index_request,
    check_out,
    plan_backward,
)
from pooling_engine.plan import make_plan

Array = NDArray[Any]


def forward_request(
    x: ArrayLike, spec: PoolSpec, return_indices: bool, index_format: str, out: Array | None
) -> bytes:
    """The request of a forward call; what the engine would refuse is refused here already."""
    tensor = as_tensor(x, "input")
    plan = make_plan(spec, tensor.shape, tensor.dtype)
    chosen = check_index_request(plan, return_indices, index_format)
    check_out(out, plan.output_shape, plan.output_dtype, tensor)
    call = pooling_wire.ForwardCall(tensor, spec, return_indices, chosen)
    return pooling_wire.encode_forward_request(call)


def forward_result(reply: bytes, out: Array | None) -> ForwardResult:
    """The result of a forward call, in arrays that the caller owns."""
    result = pooling_wire.decode_forward_response(reply)
    indices = None if result.indices is None else result.indices.copy()
    return ForwardResult(_owned(result.output, out), indices)


def backward_request(
    output_gradient: ArrayLike,
    spec: PoolSpec,
    input_shape: Sequence[int] | None,
    indices: ArrayLike | None,
    input_: ArrayLike | None,
    index_format: str | None,
    out: Array | None,
) -> bytes:
    """The request of a backward call; what the engine would refuse is refused here already.

    Only the entries of `indices` are left for the server to check.
    """
    dy = as_tensor(output_gradient, "output_gradient")
    x = None if input_ is None else as_tensor(input_, "input")
    taps = None if indices is None else as_tensor(indices, "indices")
    plan = plan_backward(spec, dy, input_shape, taps, x)
    chosen = check_index_format(index_format, taps)
    check_out(out, plan.input_shape, plan.dtype, dy, x, taps)
    shape = plan.input_shape if x is None else None  # the input says its own
    call = pooling_wire.BackwardCall(dy, spec, shape, taps, x, chosen)
    return pooling_wire.encode_backward_request(call)


def backward_result(reply: bytes, out: Array | None) -> Array:
    """The gradient of a backward call, in an array that the caller owns."""
    return _owned(pooling_wire.decode_backward_response(reply), out)


def _owned(view: Array, out: Array | None) -> Array:
    if out is None:
        return view.copy()
    np.copyto(out, view)
    return out
