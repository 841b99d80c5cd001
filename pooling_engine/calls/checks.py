"""What a call's arguments must be to one another, before a backend sees them.

The engine checks with these, the client before it sends a byte, the server through the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pooling_engine.errors import InvalidSpecError, InvalidTensorError, PoolingError
from pooling_engine.plans.indices import check_tap_count
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.plans.planning import as_shape, plan_of_array
from pooling_engine.specs.enums import IndexFormat, Mode
from pooling_engine.specs.options import flag
from pooling_engine.specs.spec import PoolSpec

Array = NDArray[Any]
_FORMATS = {str(member): member for member in IndexFormat}


def plan_backward(
    spec: PoolSpec,
    dy: Array,
    input_shape: Sequence[int] | None,
    indices: Array | None,
    x: Array | None,
) -> PoolPlan:
    """The plan of a backward call, once what was sent fits the mode and one another.

    Raises:
        As `backward`.
    """
    if input_shape is None and x is None:
        raise InvalidTensorError(
            "input_shape is missing; it may be left out only with input", field="input_shape"
        )
    shape = () if input_shape is None else as_shape(input_shape, "input_shape")
    if x is not None:
        if input_shape is not None and shape != x.shape:
            raise InvalidTensorError(
                f"input_shape is {shape}, but input has shape {x.shape}", field="input_shape"
            )
        shape = x.shape
    plan = plan_of_array(
        spec, shape, dy.dtype, shape_field="input_shape", dtype_field="output_gradient"
    )
    try:
        _check_gradient(plan, dy, x)
        _refuse_wrong_residual(plan, indices is not None, x is not None)
    except PoolingError as error:
        error.plan = plan
        raise
    return plan


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
            f"input is {x.dtype.name}, output_gradient {dy.dtype.name}; they must be the same",
            field="input",
        )


def _refuse_wrong_residual(plan: PoolPlan, has_indices: bool, has_input: bool) -> None:
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
                f"{what} needs input, and no indices",
                field="indices" if has_indices else "input",
            )
    elif has_indices or has_input:
        field = "indices" if has_indices else "input"
        raise InvalidTensorError(
            f'mode "{plan.mode}" needs only input_shape; {field} does not apply', field=field
        )


def check_index_request(plan: PoolPlan, return_indices: bool, index_format: str) -> IndexFormat:
    """The format of the indices asked for, once it makes sense to ask for them.

    Raises:
        InvalidSpecError: the mode or the window has no indices, or there is no such format.
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
    out: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any], *inputs: Array | None
) -> None:
    """Refuses an array that a result cannot be written into.

    Raises:
        InvalidTensorError: it is not writable, not C-contiguous, of another shape or type, or
            shares memory with an input, which would be overwritten while it is read.
    """
    if out is None:
        return
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


def _faults(out: Array) -> str:
    """What neither the type's name nor the shape of an array shows."""
    faults = {
        "read-only": not out.flags.writeable,
        "not contiguous": not out.flags.c_contiguous,
        "in the other byte order": not out.dtype.isnative,
    }
    return "".join(f", {words}" for words, is_so in faults.items() if is_so)


def as_tensor(array: ArrayLike, field: str) -> Array:
    """A C-contiguous array in native byte order; the caller's own where it is one already.

    Raises:
        InvalidTensorError: it is no array of numbers.
    """
    if type(array) is np.ndarray and array.flags.c_contiguous and array.dtype.isnative:
        return array
    try:
        tensor = np.asarray(array)
    except (TypeError, ValueError, RuntimeError) as error:  # PyTorch has the last
        raise InvalidTensorError(f"{field} is no array: {error}", field=field) from None
    if tensor.dtype.hasobject or tensor.dtype.names:
        raise InvalidTensorError(f"{field} holds {tensor.dtype}, not numbers", field=field)
    return np.asarray(tensor, tensor.dtype.newbyteorder("="), order="C")


def check_index_format(index_format: str | None, indices: Array | None) -> IndexFormat | None:
    """The format that the caller names for indices that were sent.

    Raises:
        InvalidSpecError: there is no such format, or there are no indices.
    """
    if index_format is not None and indices is None:
        raise InvalidSpecError("index_format applies only with indices", field="index_format")
    return _index_format(index_format)


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
