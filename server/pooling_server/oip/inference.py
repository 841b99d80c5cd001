"""Inference requests: names, parameters and tensors, turned into calls of the engine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pooling_engine import (
    BackwardCall,
    ForwardCall,
    InvalidSpecError,
    InvalidTensorError,
    PoolingError,
    PoolSpec,
    UnsupportedError,
)
from pooling_engine.specs import OPTION_MODES, option_error
from pooling_server.oip.models import Model, find_model

Array = NDArray[Any]
Parameter = bool | int | float | str

_SIZES = ("kernel", "stride", "dilation", "adaptive_output")
_PLAIN = ("ceil_mode", "count_include_pad", "global_window", "layout", "tie_policy", "nan_policy")
_SPEC = (*_SIZES, "padding", *_PLAIN, "divisor_override", "norm_p")
_SHARED = "shared_memory_"
NO_SHARED_MEMORY = (
    "this server does not read memory that clients register by name; "
    "pooling_client uses shared memory with a target of the form unix:PATH"
)


class Inference(NamedTuple):
    """A decoded request.

    Attributes:
        model_name: name of the model.
        model_version: version of the model; empty for the only one.
        id: id that the reply repeats.
        parameters: parameters of the model.
        inputs: the tensors by name.
        outputs: names of the requested outputs; empty for the default.
    """

    model_name: str
    model_version: str
    id: str
    parameters: Mapping[str, Parameter]
    inputs: Mapping[str, Array]
    outputs: tuple[str, ...]


def call_of(request: Inference) -> ForwardCall | BackwardCall:
    """Return the call that a request describes.

    Raises:
        PoolingError: the request is invalid; its field is the caller's name.
    """
    model = find_model(request.model_name, request.model_version)
    _check_names(request, model)
    try:
        spec = _spec(model, tuple((k, type(v), v) for k, v in sorted(request.parameters.items())))
        return _backward(request, spec) if model.is_gradient else _forward(request, spec)
    except PoolingError as error:
        name = error.field.partition("[")[0]
        if name in _SPEC or name in ("index_format", "input_shape"):
            error.field = f"parameters.{error.field}"
        raise


def check_tensor_parameters(names: Iterable[str], field: str) -> None:
    """Check the names of the parameters of one tensor.

    Args:
        names: names of the parameters.
        field: the tensor in the request, such as "inputs[0]".

    Raises:
        UnsupportedError: a parameter names shared memory.
        InvalidSpecError: tensors have no such parameter.
    """
    for name in names:
        place = f"{field}.parameters.{name}"
        if name.startswith(_SHARED):
            raise UnsupportedError(f"{place}: {NO_SHARED_MEMORY}", field=place)
        if name not in ("binary_data", "binary_data_size"):
            raise InvalidSpecError(f"{place}: tensors have no such parameter", field=place)


def check_input_names(names: Iterable[str]) -> None:
    """Check that no input is given twice.

    Raises:
        InvalidTensorError: a name stands twice.
    """
    seen = set()
    for number, name in enumerate(names):
        if name in seen:
            field = f"inputs[{number}]"
            raise InvalidTensorError(f"{field} is a second input {name!r}", field=f"{field}.name")
        seen.add(name)


def named_results(request: Inference, result: Any) -> dict[str, Array]:
    """Return the requested results by name, in the order of the request."""
    if isinstance(result, np.ndarray):
        return {"input_gradient": result}
    arrays = {"output": result.output, "indices": result.indices}
    return {name: arrays[name] for name in request.outputs or ("output",)}


def _check_names(request: Inference, model: Model) -> None:
    known = [tensor.name for tensor in model.inputs]
    for name, array in request.inputs.items():
        if name not in known:
            raise InvalidTensorError(
                f"the model {model.name} has no input {name!r}; its inputs: {', '.join(known)}",
                field=f"inputs.{name}",
            )
        if array.ndim != model.axes:
            raise InvalidTensorError(
                f"the shape of {name} is {list(array.shape)}; the tensors of {model.name} have "
                f"{model.axes} axes",
                field=f"{name}.shape",
            )
    if known[0] not in request.inputs:
        raise InvalidTensorError(f"the input {known[0]!r} is missing", field=f"inputs.{known[0]}")
    results = [tensor.name for tensor in model.outputs]
    for name in request.outputs:
        if name not in results:
            raise InvalidSpecError(
                f"the model {model.name} has no output {name!r}; its outputs: {', '.join(results)}",
                field=f"outputs.{name}",
            )
    legal = {*_SPEC, "index_format", *(("input_shape",) if model.is_gradient else ())}
    for name in request.parameters:
        if name.startswith(_SHARED):
            raise UnsupportedError(f"{name}: {NO_SHARED_MEMORY}", field=f"parameters.{name}")
        if name not in legal:
            raise InvalidSpecError(
                f"there is no parameter {name!r}; {model.name} has {', '.join(sorted(legal))}",
                field=f"parameters.{name}",
            )


@lru_cache(maxsize=512)  # most requests repeat the parameters of earlier ones
def _spec(model: Model, parameters: tuple[tuple[str, type, Parameter], ...]) -> PoolSpec:
    options: dict[str, Any] = {}
    for name, _, value in parameters:
        if name in OPTION_MODES and model.mode not in OPTION_MODES[name]:
            raise option_error(name, model.mode)
        if name in _SIZES:
            options[name] = _sizes(name, value)
        elif name == "padding":
            options[name] = _padding(value)
        elif name in ("divisor_override", "norm_p"):
            options[name] = _number(name, value)
        elif name in _PLAIN:
            options[name] = value
    return PoolSpec(model.mode, **options)


def _sizes(name: str, value: Parameter) -> Any:
    """Return a size, or one size per axis from text such as "3,2"."""
    if not isinstance(value, str):
        return value
    if not re.fullmatch(r" *-?\d{1,19} *(, *-?\d{1,19} *)*", value, re.ASCII):
        raise InvalidSpecError(
            f'{name} is {value!r}; it must be an integer, or integers such as "3,2"', field=name
        )
    sizes = [int(size) for size in value.split(",")]
    return sizes[0] if len(sizes) == 1 else sizes


def _padding(value: Parameter) -> Any:
    """Return a padding: a name, a size, one size per axis, or pairs such as "0:1,2:2"."""
    if not isinstance(value, str) or re.fullmatch(r"[A-Za-z_]+", value):
        return value
    if ":" not in value:
        return _sizes("padding", value)
    if not re.fullmatch(r" *\d{1,19}:\d{1,19} *(, *\d{1,19}:\d{1,19} *)*", value, re.ASCII):
        raise InvalidSpecError(
            f'padding is {value!r}; pairs of sizes before and after must be such as "0:1,2:2"',
            field="padding",
        )
    return [[int(size) for size in pair.split(":")] for pair in value.split(",")]


def _number(name: str, value: Parameter) -> Any:
    if isinstance(value, str) and value in ("inf", "infinity"):
        return float("inf")
    return value


def _forward(request: Inference, spec: PoolSpec) -> ForwardCall:
    wants_indices = "indices" in request.outputs
    format_ = _text(request, "index_format", "window")
    return ForwardCall(request.inputs["input"], spec, wants_indices, format_)


def _backward(request: Inference, spec: PoolSpec) -> BackwardCall:
    tensors, shape = request.inputs, None
    if "input_shape" in request.parameters:
        sizes = _sizes("input_shape", request.parameters["input_shape"])
        shape = tuple(sizes) if isinstance(sizes, list) else (sizes,)
    format_ = _text(request, "index_format", "") or None
    gradient, indices, given = (
        tensors.get(name) for name in ("output_gradient", "indices", "input")
    )
    assert gradient is not None
    return BackwardCall(gradient, spec, shape, indices, given, format_)


def _text(request: Inference, name: str, default: str) -> str:
    value = request.parameters.get(name, default)
    if isinstance(value, str):
        return value
    raise InvalidSpecError(f"{name} is {value!r}; it must be text", field=name)
