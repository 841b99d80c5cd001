"""One call: its arguments, normalised and checked, with the plan and the form of its results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pooling_engine.calls.arrays import HOST, Arrays
from pooling_engine.calls.checks import check_backward, check_index_request, plan_backward
from pooling_engine.errors import PoolingError
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.plans.planning import plan_of_array
from pooling_engine.specs.enums import IndexFormat
from pooling_engine.specs.spec import PoolSpec

Array = NDArray[Any]

OUTPUT, INDICES, INPUT_GRADIENT = "output", "indices", "input_gradient"


class ArraySpec(NamedTuple):
    """Shape and element type of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Size of the array in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, eq=False, init=False, slots=True)
class ForwardCall:
    """Checked arguments of `pooling_engine.forward`.

    The constructor raises every error that the arguments can cause; `run` computes the call.

    Args:
        input: tensor of shape (N, C, D1..Dn) or, channels last, (N, D1..Dn, C).
        spec: options of the layer.
        return_indices: whether to return the selected elements; "max" and "min" only.
        index_format: "window", "plane" or "tensor".
        arrays: internal; operations on the arrays of the device that holds `input`.

    Raises:
        InvalidSpecError: the options do not fit one another or the tensor.
        InvalidTensorError: the tensor has an invalid shape or element type.
        UnsupportedError: a window is too large for the engine.

    Attributes:
        input: the tensor, C-contiguous and in native byte order; a copy only if needed.
        plan: the plan of the call.
    """

    input: Array
    spec: PoolSpec
    return_indices: bool
    index_format: IndexFormat
    arrays: Arrays = field(repr=False)
    plan: PoolPlan = field(init=False, repr=False)

    def __init__(
        self,
        input: ArrayLike,  # noqa: A002  the contract's name
        spec: PoolSpec,
        return_indices: bool = False,
        index_format: str = IndexFormat.WINDOW,
        *,
        arrays: Arrays = HOST,
    ) -> None:
        tensor = arrays.as_tensor(input, "input")
        plan = plan_of_array(spec, tensor.shape, tensor.dtype)
        try:
            chosen = check_index_request(plan, return_indices, index_format)
        except PoolingError as error:
            error.plan = plan
            raise
        put = object.__setattr__
        put(self, "input", tensor)
        put(self, "spec", spec)
        put(self, "return_indices", bool(return_indices))
        put(self, "index_format", chosen)
        put(self, "arrays", arrays)
        put(self, "plan", plan)

    @property
    def result_specs(self) -> dict[str, ArraySpec]:
        """Shape and element type of each result, by its name: "output" and "indices"."""
        plan = self.plan
        specs = {OUTPUT: ArraySpec(plan.output_shape, plan.output_dtype)}
        if self.return_indices:
            dtype = plan.index_dtype_of(self.index_format)
            specs[INDICES] = ArraySpec(plan.output_shape, dtype)
        return specs


@dataclass(frozen=True, eq=False, init=False, slots=True)
class BackwardCall:
    """Checked arguments of `pooling_engine.backward`.

    The constructor raises every error that the arguments can cause, except for invalid entries of
    `indices`; `run` computes the call.

    Args:
        output_gradient: gradient of the output, of the output's shape.
        spec: options of the forward call.
        input_shape: shape of the forward input; required unless `input` is given.
        indices: for "max" and "min": the indices that the forward call returned.
        input: for "max" and "min" (instead of `indices`), and "lp": the forward input.
        index_format: format of `indices`; by default "window" for unsigned integers and "plane"
            for int64.
        arrays: internal; operations on the arrays of the device that holds `output_gradient`.

    Raises:
        InvalidSpecError: the options do not fit one another or the shape.
        InvalidTensorError: a tensor is missing or has an invalid shape or element type.
        UnsupportedError: a window is too large for the engine.

    Attributes:
        input_shape: the shape of the forward input, also if only `input` was given.
        index_format: the format of `indices`; None without indices.
        plan: the plan of the call.
    """

    output_gradient: Array
    spec: PoolSpec
    input_shape: tuple[int, ...]
    indices: Array | None
    input: Array | None
    index_format: IndexFormat | None
    arrays: Arrays = field(repr=False)
    plan: PoolPlan = field(init=False, repr=False)

    def __init__(
        self,
        output_gradient: ArrayLike,
        spec: PoolSpec,
        input_shape: Sequence[int] | None = None,
        indices: ArrayLike | None = None,
        input: ArrayLike | None = None,  # noqa: A002  the contract's name
        index_format: str | None = None,
        *,
        arrays: Arrays = HOST,
    ) -> None:
        dy = arrays.as_tensor(output_gradient, "output_gradient")
        x = None if input is None else arrays.as_tensor(input, "input")
        taps = None if indices is None else arrays.as_tensor(indices, "indices")
        plan = plan_backward(spec, dy.dtype, input_shape, x)
        try:
            chosen = check_backward(plan, dy, taps, x, index_format)
        except PoolingError as error:
            error.plan = plan
            raise
        put = object.__setattr__
        put(self, "output_gradient", dy)
        put(self, "spec", spec)
        put(self, "input_shape", plan.input_shape)
        put(self, "indices", taps)
        put(self, "input", x)
        put(self, "index_format", chosen)
        put(self, "arrays", arrays)
        put(self, "plan", plan)

    @property
    def result_specs(self) -> dict[str, ArraySpec]:
        """Shape and element type of the result, by its name: "input_gradient"."""
        return {INPUT_GRADIENT: ArraySpec(self.plan.input_shape, self.plan.dtype)}
