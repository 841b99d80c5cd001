"""The engine's functions: `plan`, `forward`, `forward_all`, `backward`, `run`, `warm_up`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, overload

from numpy.typing import ArrayLike, NDArray

from pooling_engine.backends.protocols import Backend
from pooling_engine.backends.registry import select_backend
from pooling_engine.calls.arrays import arrays_of
from pooling_engine.calls.call import INDICES, INPUT_GRADIENT, OUTPUT, BackwardCall, ForwardCall
from pooling_engine.calls.forward_all import ForwardAllCall, forward_all_call, result_prefix
from pooling_engine.errors import InvalidSpecError
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.plans.planning import make_plan
from pooling_engine.specs.enums import IndexFormat
from pooling_engine.specs.spec import PoolSpec

Array = NDArray[Any]


class ForwardResult(NamedTuple):
    """Result of `forward`.

    Attributes:
        output: the pooled tensor.
        indices: the selected elements, of the output's shape; None unless requested.
    """

    output: Array
    indices: Array | None


def plan(spec: PoolSpec, shape: Sequence[int], dtype: Any) -> PoolPlan:
    """Return the plan of a spec for an input, with everything resolved; nothing is computed.

    Args:
        spec: options of the layer.
        shape: shape of the input.
        dtype: element type of the input.

    Returns:
        The plan: `output_shape`, `output_dtype`, `planned_axes` with the padding in effect,
        `taps`, `index_dtype`, `divisor_rule`. Plans are cached.

    Raises:
        InvalidSpecError: the windows do not fit the shape.
        InvalidTensorError: the shape or the element type is invalid.
        UnsupportedError: a window is too large for the engine.
        TensorTooLargeError: a tensor would have more than 2^63 - 1 bytes.
    """
    return make_plan(spec, shape, dtype)


def forward(
    x: ArrayLike,
    spec: PoolSpec,
    *,
    return_indices: bool = False,
    index_format: str = "window",
    backend: str = "auto",
    out: Array | None = None,
) -> ForwardResult:
    """Pool a tensor.

    Args:
        x: the input, of shape (N, C, D1..Dn) or, channels last, (N, D1..Dn, C), with 1 to 6
            spatial axes; float16, bfloat16 (of ml_dtypes), float32 or float64, or an integer of 8
            to 64 bits ("uint8", otherwise signed; not for "lp"). Never written to.
        spec: options of the layer.
        return_indices: whether to return the selected elements; "max" and "min" only.
        index_format: "window" (number of the element in its window, in the smallest unsigned
            type), "plane" (PyTorch's: int64, flat in the spatial plane) or "tensor" (ONNX's:
            int64, flat in the whole tensor, counted channels first in either layout).
        backend: the name of a backend, or "auto".
        out: a C-contiguous array of the output's shape and type to write the output into.

    Returns:
        The output and the indices. The output has the input's type; for integers, a sum is
        int64 and an average float32 (float64 for int64).

    Raises:
        InvalidSpecError: the options do not fit one another or the tensor.
        InvalidTensorError: the tensor or `out` has an invalid shape or type, or a sum of
            integers overflows.
        UnsupportedError: a window is too large for the engine.
    """
    computes = select_backend(backend)
    call = ForwardCall(x, spec, return_indices, index_format, arrays=arrays_of(x, computes))
    return _forward(call, computes, out, None)


def forward_all(
    x: ArrayLike,
    specs: Sequence[PoolSpec],
    *,
    return_indices: bool | Sequence[bool] = False,
    index_format: str = "window",
    backend: str = "auto",
) -> tuple[ForwardResult, ...]:
    """Pool one tensor with several layers. The results are those of `forward`.

    Args:
        x: the input, as for `forward`.
        specs: options of 1 to 64 layers.
        return_indices: whether to return the selected elements, for all layers or for each.
        index_format: format of the indices, as for `forward`.
        backend: the name of a backend, or "auto".

    Returns:
        One result for each layer, in the order of `specs`.

    Raises:
        InvalidSpecError: the options do not fit one another or the tensor.
        InvalidTensorError: the tensor has an invalid shape or type, or a sum of integers overflows.
        UnsupportedError: a window is too large for the engine.
    """
    computes = select_backend(backend)
    call = forward_all_call(x, specs, return_indices, index_format, arrays_of(x, computes))
    return run(call, backend=backend)


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
    """Compute the gradient of the input from the gradient of the output.

    Args:
        output_gradient: tensor of the output's shape; its element type is the result's.
        spec: the spec of the forward call.
        input_shape: shape of the forward input; required unless `input` is given.
        indices: for "max" and "min": the indices that the forward call returned.
        input: for "max" and "min" (instead of `indices`), and "lp": the forward input.
        index_format: format of `indices`; by default "window" for unsigned integers and "plane"
            for int64.
        backend: the name of a backend, or "auto".
        out: a C-contiguous array of the input's shape and the gradient's type to write into; its
            content is undefined after an error.

    Returns:
        The gradient, of the input's shape.

    Raises:
        InvalidSpecError: the options do not fit one another or the shape.
        InvalidTensorError: a tensor is missing or has an invalid shape, type or entry.
        UnsupportedError: a window is too large for the engine.
    """
    computes = select_backend(backend)
    arrays = arrays_of(output_gradient, computes)
    call = BackwardCall(
        output_gradient, spec, input_shape, indices, input, index_format, arrays=arrays
    )
    return _backward(call, computes, out)


@overload
def run(
    call: ForwardCall, results: Mapping[str, Array] | None = None, *, backend: str = "auto"
) -> ForwardResult: ...
@overload
def run(
    call: ForwardAllCall, results: Mapping[str, Array] | None = None, *, backend: str = "auto"
) -> tuple[ForwardResult, ...]: ...
@overload
def run(
    call: BackwardCall, results: Mapping[str, Array] | None = None, *, backend: str = "auto"
) -> Array: ...
def run(
    call: ForwardCall | ForwardAllCall | BackwardCall,
    results: Mapping[str, Array] | None = None,
    *,
    backend: str = "auto",
) -> ForwardResult | tuple[ForwardResult, ...] | Array:
    """Compute a call.

    Args:
        call: the checked arguments.
        results: arrays to write results into, by the names of `call.result_specs`; C-contiguous
            and of that shape and type. Results without an array are allocated.
        backend: the name of a backend, or "auto".

    Returns:
        A `ForwardResult` for a `ForwardCall`, one for each layer of a `ForwardAllCall`, the
        gradient for a `BackwardCall`.

    Raises:
        InvalidSpecError: there is no such backend, or `call` is not a call.
        InvalidTensorError: an array of `results` does not fit, an entry of `indices` is invalid,
            `nan_policy` is "error" and a NaN was found, or a sum of integers overflows.
    """
    computes = select_backend(backend)
    if isinstance(call, ForwardAllCall):
        return _run_all(call, {} if results is None else results, backend)
    if not isinstance(call, ForwardCall | BackwardCall):
        raise InvalidSpecError(
            f"call is {call!r}; it must be a ForwardCall or a BackwardCall", field="call"
        )
    call.arrays.check_backend(computes)
    given = {} if results is None else results
    _check_result_names(call, given)
    if isinstance(call, ForwardCall):
        return _forward(call, computes, given.get(OUTPUT), given.get(INDICES))
    return _backward(call, computes, given.get(INPUT_GRADIENT))


def _run_all(
    all_: ForwardAllCall, results: Mapping[str, Array], backend: str
) -> tuple[ForwardResult, ...]:
    _check_result_names(all_, results)
    done = []
    for number, call in enumerate(all_.calls):
        prefix = result_prefix(number)
        named = {name: results.get(prefix + name) for name in call.result_specs}
        given = {name: array for name, array in named.items() if array is not None}
        done.append(run(call, given, backend=backend))
    return tuple(done)


def _check_result_names(
    call: ForwardCall | ForwardAllCall | BackwardCall, results: Mapping[str, Array]
) -> None:
    specs = call.result_specs
    unknown = [name for name in results if name not in specs]
    if unknown:
        legal = ", ".join(f'"{name}"' for name in specs)
        raise InvalidSpecError(
            f"results has {unknown[0]!r}; this call has {legal}", field=f"results[{unknown[0]}]"
        )


def _forward(
    call: ForwardCall, computes: Backend, out: Array | None, indices_out: Array | None
) -> ForwardResult:
    x, plan, arrays = call.input, call.plan, call.arrays
    shape = plan.output_shape
    output = arrays.allocate(out, shape, plan.output_dtype, x)
    if not call.return_indices:
        computes.forward(plan, x, output, None)
        return ForwardResult(output, None)
    format_ = call.index_format
    dtype = plan.index_dtype_of(format_)
    indices = arrays.allocate(indices_out, shape, dtype, x, output)
    if format_ is IndexFormat.WINDOW:
        computes.forward(plan, x, output, indices)
    else:
        windows = arrays.allocate(None, shape, plan.index_dtype)
        computes.forward(plan, x, output, windows)
        arrays.to_positions(plan, windows, format_, indices)
    return ForwardResult(output, indices)


def _backward(call: BackwardCall, computes: Backend, out: Array | None) -> Array:
    plan, arrays = call.plan, call.arrays
    dy, x, taps = call.output_gradient, call.input, call.indices
    format_ = call.index_format
    if taps is not None:
        if format_ is not None and format_ is not IndexFormat.WINDOW:
            taps = arrays.from_positions(plan, taps, format_)
    elif plan.selects and x is not None and not plan.shares_ties:
        taps = arrays.allocate(None, plan.output_shape, plan.index_dtype)
        output = arrays.allocate(None, plan.output_shape, plan.dtype)
        computes.forward(plan, x, output, taps)
    dx: Array = arrays.allocate(out, plan.input_shape, plan.dtype, dy, x, taps)
    computes.backward(plan, dy, taps, x, dx)
    return dx


def warm_up(backend: str = "auto", *, background: bool = False) -> None:
    """Prepare a backend for the most common calls: compile kernels, or load them from disk.

    Args:
        backend: the name of a backend, or "auto".
        background: whether later calls that need a kernel that is not compiled yet are computed
            by another backend while a thread compiles it. Without it, they wait. Results are
            bit-identical, except for norms on a GPU, which always wait for their kernel.

    Raises:
        InvalidSpecError: there is no such backend.
    """
    select_backend(backend).warm_up(background=background)
