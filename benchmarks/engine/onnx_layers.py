"""ONNX Runtime's operator for a layer, with and without bound arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime

import pooling_engine
from benchmarks.engine.suite import AVERAGES, BYTES, FORWARD_INDICES, Layer, Tensors

OPSET = 22
IR_VERSION = 10


def onnx_calls(tensors: Tensors, operation: str) -> dict[str, Callable[[], Any]]:
    """Return a plain `run` and one bound to arrays that it reads and writes in place.

    The result is empty if the CPU provider lacks the operator for this layer or element type.
    """
    if tensors.layer.adaptive:
        return {}
    outputs = {"y": (tensors.plan.output_shape, tensors.dtype)}
    if operation == FORWARD_INDICES:
        outputs["indices"] = (tensors.plan.output_shape, np.dtype(np.int64))
    try:
        session = session_of(tensors, operation, outputs)
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        return {}
    return {
        "onnxruntime_run": lambda: session.run(None, {"x": tensors.x}),
        "onnxruntime_binding": bound(session, tensors.x, outputs),
    }


def session_of(
    tensors: Tensors, operation: str, outputs: dict[str, Any]
) -> onnxruntime.InferenceSession:
    """Return a session for a graph of one node, with as many threads as the engine."""
    helper = onnx.helper
    operator, attributes = node_of(tensors.layer, operation)
    inputs, constants = ["x"], []
    if tensors.dtype == BYTES:
        operator, attributes = "QLinearGlobalAveragePool", {"domain": "com.microsoft"}
        inputs = ["x", "scale", "zero", "scale", "zero"]
        constants = [helper.make_tensor("scale", onnx.TensorProto.FLOAT, (), [1.0])]
        constants += [helper.make_tensor("zero", onnx.TensorProto.UINT8, (), [0])]
    graph = helper.make_graph(
        [helper.make_node(operator, inputs, list(outputs), **attributes)],
        operator,
        [value("x", tensors.x.shape, tensors.dtype)],
        [value(name, *output) for name, output in outputs.items()],
        constants,
    )
    opset = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = pooling_engine.thread_count()
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def node_of(layer: Layer, operation: str) -> tuple[str, dict[str, Any]]:
    """Return the operator and its attributes."""
    is_average, rank = operation in AVERAGES, len(layer.shape) - 2
    if not layer.kernel:
        if operation != FORWARD_INDICES:
            return ("GlobalAveragePool" if is_average else "GlobalMaxPool"), {}
        return "MaxPool", {
            "kernel_shape": layer.shape[2:]
        }  # the global operator returns no indices
    attributes: dict[str, Any] = {
        "kernel_shape": [layer.kernel] * rank,
        "strides": [layer.stride] * rank,
        "pads": [pads for pads in layer.pads() for _ in range(rank)],
    }
    if is_average:
        return "AveragePool", attributes | {"count_include_pad": int(layer.counts_padding)}
    return "MaxPool", attributes


def value(name: str, shape: tuple[int, ...], dtype: np.dtype) -> onnx.ValueInfoProto:
    of_type = onnx.helper.np_dtype_to_tensor_dtype
    return onnx.helper.make_tensor_value_info(name, of_type(dtype), shape)


def bound(
    session: onnxruntime.InferenceSession, x: np.ndarray, outputs: dict[str, Any]
) -> Callable[[], np.ndarray]:
    """Return a call that allocates nothing."""
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(x))
    arrays = {name: np.zeros(*output) for name, output in outputs.items()}
    for name, array in arrays.items():
        binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def call() -> np.ndarray:
        session.run_with_iobinding(binding)
        return arrays["y"]

    return call
