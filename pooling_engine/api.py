"""The two functions of the engine: check, plan, allocate, hand to a backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from numpy.typing import ArrayLike, NDArray

from pooling_engine.backends import select_backend
from pooling_engine.calls.arrays import memory_of
from pooling_engine.calls.checks import check_index_format, check_index_request, plan_backward
from pooling_engine.errors import InvalidTensorError
from pooling_engine.plans.planning import make_plan
from pooling_engine.specs.enums import IndexFormat
from pooling_engine.specs.spec import PoolSpec

Array = NDArray[Any]


class ForwardResult(NamedTuple):
    """What `forward` returns.

    Attributes:
        output: the pooled tensor, of the input's element type.
        indices: the selected taps, of the output's shape, or None if not asked for.
    """

    output: Array
    indices: Array | None


def forward(
    x: ArrayLike,
    spec: PoolSpec,
    *,
    return_indices: bool = False,
    index_format: str = "window",
    backend: str = "auto",
    out: Array | tuple[Array, Array] | None = None,
) -> ForwardResult:
    """Pools a tensor.

    Args:
        x: the input, of shape (N, C, D1..Dn) or, channels last, (N, D1..Dn, C), with 1 to 6
            spatial axes; float16, bfloat16 (of ml_dtypes), float32 or float64, or an integer of 8
            to 64 bits ("uint8", otherwise signed; not for "lp"). Never written to.
        spec: what to compute.
        return_indices: whether to return the selected taps; "max" and "min" only.
        index_format: "window" (the tap's number in its window, in the smallest unsigned
            type), "plane" (PyTorch's: int64, flat in the spatial plane) or "tensor" (ONNX's:
            int64, flat in the whole tensor, counted channels first in either layout).
        backend: the name of a backend, or "auto".
        out: a C-contiguous array of the output's shape and type to write into; or a pair of one
            for the output and one for window indices.

    Returns:
        The output and the indices. The output has the input's type; of integers, a sum is
        int64 and an average float32 (float64 for int64).

    Raises:
        InvalidSpecError: the options do not fit one another or the tensor.
        InvalidTensorError: the tensor or `out` has the wrong shape or type, or a sum of
            integers overflows.
        UnsupportedError: legal, but not built.
    """
    computes = select_backend(backend)
    memory = memory_of(x, computes)
    tensor = memory.as_tensor(x, "input")
    plan = make_plan(spec, tensor.shape, tensor.dtype)
    chosen = check_index_request(plan, return_indices, index_format)
    out, indices_out = _both(out, return_indices, chosen)
    output = memory.allocate(out, plan.output_shape, plan.output_dtype, tensor)
    indices = None
    if return_indices:
        indices = memory.allocate(indices_out, plan.output_shape, plan.index_dtype, tensor, output)
    computes.forward(plan, tensor, output, indices)
    if indices is not None and chosen is not IndexFormat.WINDOW:
        indices = memory.to_positions(plan, indices, chosen)
    return ForwardResult(output, indices)


def backward(
    output_gradient: ArrayLike,
    spec: PoolSpec,
    *,
    input_shape: Sequence[int] | None = None,
    indices: ArrayLike | None = None,
    input: ArrayLike | None = None,  # noqa: A002  the contract's name
    index_format: str | None = None,
    backend: str = "auto",
    out: Array | None = None,
) -> Array:
    """Computes the gradient of the input from the gradient of the output.

    Args:
        output_gradient: of the output's shape; its element type is the result's.
        spec: the spec of the forward call.
        input_shape: the shape of the forward input; may be left out with `input`.
        indices: "max" and "min": the indices that the forward call returned.
        input: "max", "min" (in place of indices) and "lp": the input of the forward call.
        index_format: what `indices` are; None: unsigned means "window", int64 "plane".
        backend: the name of a backend, or "auto".
        out: a C-contiguous array of the input's shape and the gradient's type to write into; what
            it holds after a refusal is left open.

    Returns:
        The gradient, of the input's shape.

    Raises:
        InvalidSpecError: the options do not fit one another or the shape.
        InvalidTensorError: a tensor has the wrong shape, type or entries, or is missing.
        UnsupportedError: legal, but not built.
    """
    computes = select_backend(backend)
    memory = memory_of(output_gradient, computes)
    dy = memory.as_tensor(output_gradient, "output_gradient")
    x = None if input is None else memory.as_tensor(input, "input")
    taps = None if indices is None else memory.as_tensor(indices, "indices")
    plan = plan_backward(spec, dy, input_shape, taps, x)
    chosen = check_index_format(index_format, taps)
    if taps is not None:
        taps = memory.from_caller(plan, taps, chosen)
    elif plan.selects and x is not None and not plan.shares_ties:
        taps = memory.allocate(None, plan.output_shape, plan.index_dtype)
        output = memory.allocate(None, plan.output_shape, plan.dtype)
        computes.forward(plan, x, output, taps)
    dx: Array = memory.allocate(out, plan.input_shape, plan.dtype, dy, x, taps)
    computes.backward(plan, dy, taps, x, dx)
    return dx


def _both(
    out: Array | tuple[Array, Array] | None, return_indices: bool, index_format: IndexFormat
) -> tuple[Array | None, Array | None]:
    """What to write the output and the indices into, if anything."""
    if not isinstance(out, tuple):
        return out, None
    if len(out) != 2 or not return_indices or index_format is not IndexFormat.WINDOW:
        raise InvalidTensorError(
            "out may be a pair, of arrays for the output and the indices, only where window "
            "indices are asked for",
            field="out",
        )
    return out


def warm_up(backend: str = "auto", *, background: bool = False) -> None:
    """Gets a backend ready for the most common calls: compiles kernels, or finds them on disk.

    Args:
        backend: the name of a backend, or "auto".
        background: whether later calls that need a kernel not compiled yet are computed without
            it, while it is compiled by a thread of its own; else they wait. The results are the
            same bits: a card's norms, whose bits are its own, are waited for.

    Raises:
        InvalidSpecError: there is no such backend here.
    """
    select_backend(backend).warm_up(background=background)
