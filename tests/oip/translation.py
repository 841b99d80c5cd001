"""Requests of `pooling.v1` as requests of the Open Inference Protocol."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pooling_wire.v1 import pooling_pb2 as pb

_DATATYPES = {"FLOAT16": "FP16", "FLOAT32": "FP32", "FLOAT64": "FP64", "BFLOAT16": "BF16"}
RANKS = (3, 4, 5)


class Request(NamedTuple):
    """A request: parameters, tensors as (datatype, shape, bytes) by name, and output names."""

    model: str
    parameters: dict[str, Any]
    inputs: dict[str, tuple[str, list[int], bytes]]
    outputs: list[str]


def translated(message: Any) -> Request | None:
    """Return a request; None if the protocol cannot express it."""
    is_gradient = isinstance(message, pb.BackwardRequest)
    if not is_gradient and message.more:
        return None
    names = ("output_gradient", "indices", "input") if is_gradient else ("input",)
    tensors = {name: getattr(message, name) for name in names if message.HasField(name)}
    if any(tensor.element_type == 0 for tensor in tensors.values()):
        return None
    rank = len(next(iter(tensors.values())).shape) if tensors else 0
    if rank not in RANKS or any(len(tensor.shape) != rank for tensor in tensors.values()):
        return None
    parameters = _parameters(message.spec)
    if parameters is None:
        return None
    mode = pb.Mode.Name(message.spec.mode).removeprefix("MODE_").lower()
    outputs = []
    if is_gradient:
        if message.input_shape:
            parameters["input_shape"] = ",".join(map(str, message.input_shape))
    else:
        outputs = ["output", "indices"] if message.return_indices else []
    if message.index_format:
        name = pb.IndexFormat.Name(message.index_format)
        parameters["index_format"] = name.removeprefix("INDEX_FORMAT_").lower()
    return Request(
        f"{mode}_pool{rank - 2}d{'_gradient' if is_gradient else ''}",
        parameters,
        {name: _tensor(tensor) for name, tensor in tensors.items()},
        outputs,
    )


def _tensor(tensor: Any) -> tuple[str, list[int], bytes]:
    name = datatype(tensor.element_type)
    return name, list(tensor.shape), tensor.data


def datatype(element_type: int) -> str:
    """Return the datatype of an element type."""
    name = pb.ElementType.Name(element_type).removeprefix("ELEMENT_TYPE_")
    return _DATATYPES.get(name, name)


def _parameters(spec: Any) -> dict[str, Any] | None:
    parameters: dict[str, Any] = {}
    if spec.mode == 0:
        return None
    kind = spec.WhichOneof("windows")
    if kind == "global_window":
        parameters["global_window"] = True
    elif kind == "adaptive_windows":
        parameters["adaptive_output"] = _text(spec.adaptive_windows.output_sizes)
    elif kind == "sliding_windows":
        pads = any(axis.padding_before or axis.padding_after for axis in spec.sliding_windows.axes)
        if spec.sliding_windows.named_padding and pads:  # one parameter has both
            return None
        _add_sliding(spec.sliding_windows, parameters)
    for name in ("count_include_pad", "divisor_override", "norm_p"):
        if spec.HasField(name):
            parameters[name] = getattr(spec, name)
    for name, enum in (
        ("layout", pb.Layout),
        ("tie_policy", pb.TiePolicy),
        ("nan_policy", pb.NanPolicy),
    ):
        if number := getattr(spec, name):
            if number not in enum.values():
                return None
            parameters[name] = enum.Name(number).removeprefix(f"{name.upper()}_").lower()
    return parameters


def _add_sliding(windows: Any, parameters: dict[str, Any]) -> None:
    axes = windows.axes
    if axes:
        parameters["kernel"] = _text(axis.kernel for axis in axes)
    for name in ("stride", "dilation"):
        if any(axis.HasField(name) for axis in axes):
            parameters[name] = _text(getattr(axis, name) for axis in axes)
    if windows.ceil_mode:
        parameters["ceil_mode"] = True
    if windows.named_padding:
        name = pb.NamedPadding.Name(windows.named_padding)
        parameters["padding"] = name.removeprefix("NAMED_PADDING_").lower()
    elif any(axis.padding_before or axis.padding_after for axis in axes):
        pairs = (f"{axis.padding_before}:{axis.padding_after}" for axis in axes)
        parameters["padding"] = ",".join(pairs)


def _text(sizes: Any) -> str:
    return ",".join(map(str, sizes))


def expected_bytes(record: dict[str, Any]) -> bytes:
    """Return the elements of an expected tensor."""
    return bytes.fromhex(record["hex"]) * record.get("times", 1)


def tensor_of(array: np.ndarray) -> tuple[str, list[int], bytes]:
    """Return an array of floats or integers as a tensor of a request."""
    names = {"float": "FP", "bfloat": "BF", "int": "INT", "uint": "UINT"}
    kind = array.dtype.name.rstrip("0123456789")
    name = names[kind] + array.dtype.name[len(kind) :]
    return name, list(array.shape), array.tobytes()
