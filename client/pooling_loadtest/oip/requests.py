"""A call as a request of the Open Inference Protocol: model, inputs, parameters and outputs.

Without the name of a model, the server is a pooling server: its models are named by mode, number of
spatial axes and direction, such as "max_pool2d_gradient", and the options are parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from pooling_engine import BackwardCall, ForwardCall

Parameter = bool | int | float | str


@dataclass(frozen=True)
class InferRequest:
    """A request.

    Attributes:
        model: name of the model.
        inputs: tensors by name.
        parameters: parameters by name.
        outputs: names of the outputs; empty for all.
    """

    model: str
    inputs: dict[str, NDArray[Any]]
    parameters: dict[str, Parameter]
    outputs: tuple[str, ...] = ()


def request_of(
    call: ForwardCall | BackwardCall,
    spec: Mapping[str, Any],
    model: str | None,
    input_name: str | None,
    parameters: Mapping[str, Parameter],
) -> InferRequest:
    """Return the request of a call.

    Args:
        call: the call.
        spec: arguments of its `PoolSpec`.
        model: name of a model of another server; None for a pooling server.
        input_name: name of the input of that model.
        parameters: more parameters.
    """
    tensor = call.input if isinstance(call, ForwardCall) else call.output_gradient
    if model is not None:
        return InferRequest(model, {input_name or "input": tensor}, dict(parameters))
    options = {name: _parameter(value) for name, value in spec.items() if name != "mode"}
    name = f"{spec['mode']}_pool{tensor.ndim - 2}d"
    if isinstance(call, ForwardCall):
        outputs = ("output", "indices") if call.return_indices else ("output",)
        return InferRequest(name, {"input": tensor}, options | dict(parameters), outputs)
    options["input_shape"] = _parameter(call.input_shape)
    tensors = {"output_gradient": tensor, "indices": call.indices, "input": call.input}
    inputs = {key: value for key, value in tensors.items() if value is not None}
    return InferRequest(f"{name}_gradient", inputs, options | dict(parameters))


def _parameter(value: Any) -> Parameter:
    """Return an option as a parameter: "3,2" for sizes, "0:1,2:2" for pairs."""
    if isinstance(value, tuple | list):
        return ",".join(
            ":".join(map(str, each)) if isinstance(each, tuple | list) else str(each)
            for each in value
        )
    if isinstance(value, float) and math.isinf(value):
        return "inf"
    assert isinstance(value, bool | int | float | str)
    return value
