"""Checks of the arguments of a call, before a backend receives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pooling_engine.calls.foreign import as_array, as_out
from pooling_engine.errors import InvalidSpecError, InvalidTensorError
from pooling_engine.plans.indices import check_indices, check_tap_count
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.plans.planning import as_shape, plan_of_array
from pooling_engine.specs.enums import IndexFormat, Mode
from pooling_engine.specs.options import flag
from pooling_engine.specs.spec import PoolSpec

Array = NDArray[Any]
_FORMATS = {str(member): member for member in IndexFormat}


def plan_backward(
    spec: PoolSpec, dtype: np.dtype[Any], input_shape: Sequence[int] | None, x: Array | None
) -> PoolPlan:
    """Return the plan of a backward call.

    Args:
        spec: options of the forward call.
        dtype: element type of the output gradient.
        input_shape: shape of the forward input, or None.
        x: the forward input, or None.

    Raises:
        InvalidSpecError: `spec` is not a spec, or the windows do not fit the shape.
        InvalidTensorError: the shape is missing, invalid or not that of `x`, or the type invalid.
        UnsupportedError: a window is too large for the engine.
    """
    if input_shape is None and x is None:
        raise InvalidTensorError(
            "input_shape is required unless input is given", field="input_shape"
        )
    shape = () if input_shape is None else as_shape(input_shape, "input_shape")
    if x is not None:
        if input_shape is not None and shape != x.shape:
            raise InvalidTensorError(
                f"input_shape is {shape}, but input has shape {x.shape}", field="input_shape"
            )
        shape = x.shape
    return plan_of_array(
        spec, shape, dtype, shape_field="input_shape", dtype_field="output_gradient"
    )


def check_backward(
    plan: PoolPlan, dy: Array, indices: Array | None, x: Array | None, index_format: str | None
) -> IndexFormat | None:
    """Return the format of the indices of a backward call, once its tensors fit the plan.

    Raises:
        InvalidSpecError: the index format is unknown, there are no indices, or the window has too
            many taps for indices.
        InvalidTensorError: a tensor has an invalid shape or type, is missing or does not apply.
    """
    _check_gradient(plan, dy, x)
    _check_residual(plan, indices is not None, x is not None)
    if indices is None:
        if index_format is not None:
            raise InvalidSpecError("index_format applies only with indices", field="index_format")
        return None
    return check_indices(plan, indices, _index_format(index_format))


def _check_gradient(plan: PoolPlan, dy: Array, x: Array | None) -> None:
    if not plan.is_float:
        raise InvalidTensorError(
            f"output_gradient is {dy.dtype.name}; integer tensors have no gradient",
            field="output_gradient",
        )
    if dy.shape != plan.output_shape:
        raise InvalidTensorError(
            f"output_gradient has shape {dy.shape}; the output of an input of shape "
            f"{plan.input_shape} has {plan.output_shape}",
            field="output_gradient",
        )
    if x is not None and x.dtype != dy.dtype:
        raise InvalidTensorError(
            f"input is {x.dtype.name}, but output_gradient is {dy.dtype.name}; "
            "their element types must be equal",
            field="input",
        )


def _check_residual(plan: PoolPlan, has_indices: bool, has_input: bool) -> None:
    if plan.selects and not plan.shares_ties:
        if has_indices == has_input:
            given = "both" if has_indices else "neither"
            raise InvalidTensorError(
                f'mode "{plan.mode}" needs either indices or input, not {given}', field="indices"
            )
    elif plan.selects or plan.mode is Mode.LP:
        if has_indices or not has_input:
            what = f'tie_policy "{plan.tie_policy}"' if plan.selects else 'mode "lp"'
            raise InvalidTensorError(
                f"{what} needs input" + (", not indices" if has_indices else ", which is missing"),
                field="indices" if has_indices else "input",
            )
    elif has_indices or has_input:
        field = "indices" if has_indices else "input"
        raise InvalidTensorError(
            f'mode "{plan.mode}" needs only input_shape; {field} does not apply', field=field
        )


def check_index_request(plan: PoolPlan, return_indices: bool, index_format: str) -> IndexFormat:
    """Return the format of the indices of a forward call, once the call may return indices.

    Raises:
        InvalidSpecError: the mode or the window has no indices, or the format is unknown.
    """
    chosen = _index_format(index_format) or IndexFormat.WINDOW
    if flag("return_indices", return_indices) and not plan.selects:
        raise InvalidSpecError(
            f'mode "{plan.mode}" selects no element, so it has no indices', field="return_indices"
        )
    if return_indices:
        check_tap_count(plan)
    return chosen


def check_out(
    out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], *inputs: Array | None
) -> Array | None:
    """Return the array that a result is written into.

    Args:
        out: the array, or a tensor of PyTorch whose memory it shares; None is accepted.
        shape: shape of the result.
        dtype: element type of the result.
        inputs: arrays that are read while the result is written.

    Raises:
        InvalidTensorError: `out` is not writable, not C-contiguous, of another shape or type, or
            shares memory with an input.
    """
    if out is None:
        return None
    out = as_out(out)
    if not isinstance(out, np.ndarray):
        raise InvalidTensorError(f"out must be an array, not {type(out).__name__}", field="out")
    is_usable = out.flags.c_contiguous and out.flags.writeable
    if out.shape != shape or out.dtype != dtype or not is_usable:
        raise InvalidTensorError(
            f"out must be a writable C-contiguous {dtype.name} array of shape {shape}, "
            f"not {out.dtype.name} of shape {out.shape}{_faults(out)}",
            field="out",
        )
    for array in inputs:
        if array is not None and np.may_share_memory(out, array):
            raise InvalidTensorError("out shares memory with an input", field="out")
    return out


def _faults(out: Array) -> str:
    """Return the faults of an array that its type and shape do not show."""
    faults = {
        "read-only": not out.flags.writeable,
        "not contiguous": not out.flags.c_contiguous,
        "in the other byte order": not out.dtype.isnative,
    }
    return "".join(f", {fault}" for fault, is_present in faults.items() if is_present)


def as_tensor(array: ArrayLike, field: str) -> Array:
    """Return a C-contiguous array in native byte order; the caller's own if it already is one.

    Args:
        array: anything that `as_array` accepts.
        field: name of the argument, for errors.

    Raises:
        InvalidTensorError: `array` is not an array of numbers.
    """
    if type(array) is np.ndarray and array.flags.c_contiguous and array.dtype.isnative:
        return array
    tensor = as_array(array, field)
    return np.asarray(tensor, tensor.dtype.newbyteorder("="), order="C")


def _index_format(name: str | None) -> IndexFormat | None:
    if name is None or isinstance(name, IndexFormat):
        return name
    try:
        return _FORMATS[name]  # much faster than IndexFormat(name)
    except (KeyError, TypeError):
        legal = ", ".join(f'"{member}"' for member in IndexFormat)
        raise InvalidSpecError(
            f"index_format is {name!r}; it must be one of {legal}", field="index_format"
        ) from None
