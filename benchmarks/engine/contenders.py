"""Contenders: calls without arguments on the same tensors."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch

import pooling_engine
from benchmarks.engine import torch_layers as engine_torch
from benchmarks.engine.bandwidth import read_once, write_once
from benchmarks.engine.onnx_layers import onnx_calls
from benchmarks.engine.suite import BACKWARD_MAX, FORWARD_INDICES, Tensors, mode_of
from benchmarks.engine.torch_layers import Call


def contenders(tensors: Tensors, operation: str) -> dict[str, Call]:
    """Return the contenders that support an operation, by name.

    PyTorch pools channels-last rows in its channels-last memory format, and no bytes; ONNX Runtime
    supports neither channels last nor gradients. "related" is the engine on the layer with which
    a goal compares this one.
    """
    is_forward = operation.startswith("forward")
    engine = engine_forward if is_forward else engine_backward
    calls = engine(tensors, operation)
    related = tensors.layer.related()
    if related:
        its_tensors = Tensors(related, tensors.dtype.name, tensors.layout)
        calls["related"] = engine(its_tensors, operation)["ours"]
    is_last, is_float = tensors.layout == "NHWC", tensors.dtype.kind == "f"
    formats = engine_torch.formats(tensors.layer, tensors.layout) if is_float else {}
    for name, memory_format in formats.items():
        with contextlib.suppress(NotImplementedError):  # no such float16 kernel
            calls[name] = torch_call(tensors, operation, memory_format)
    if is_forward and not is_last:
        calls |= onnx_calls(tensors, operation)
    calls["floor"] = read_once(tensors.x) if is_forward else write_once(tensors.dx)
    return calls


def model_contenders(pools: list[tuple[Tensors, str]]) -> dict[str, Call]:
    """Return the contenders that support every pool of a model; each call computes all of them."""
    each = [contenders(tensors, operation) for tensors, operation in pools]
    able = [name for name in each[0] if all(name in calls for calls in each)]
    return {name: _in_turn([calls[name] for calls in each]) for name in able}


def _in_turn(calls: list[Call]) -> Call:
    def call() -> None:
        for each in calls:
            each()

    return call


def answer(result: Any, layout: str) -> np.ndarray:
    """Return the output or gradient of a contender as an array in the row's layout."""
    first = result[0] if isinstance(result, (tuple, list)) else result
    if not isinstance(first, torch.Tensor):
        return first
    array = first.detach().numpy()
    return np.moveaxis(array, 1, -1) if layout == "NHWC" else array


def engine_forward(tensors: Tensors, operation: str) -> dict[str, Call]:
    x, y, spec = tensors.x, tensors.y, tensors.spec(mode_of(operation))
    has_indices = operation == FORWARD_INDICES

    def call(**options: Any) -> Call:
        return lambda: pooling_engine.forward(x, spec, return_indices=has_indices, **options)

    return {"ours": call(out=y), "ours_allocating": call(), "numpy": call(backend="numpy")}


def engine_backward(tensors: Tensors, operation: str) -> dict[str, Call]:
    dy, dx, spec = tensors.dy, tensors.dx, tensors.spec(mode_of(operation))
    residual: dict[str, Any] = {"input_shape": tensors.x.shape}
    if operation == BACKWARD_MAX:
        residual["indices"] = tensors.indices

    def call(**options: Any) -> Call:
        return lambda: pooling_engine.backward(dy, spec, **residual, **options)

    return {"ours": call(out=dx), "ours_allocating": call(), "numpy": call(backend="numpy")}


def torch_call(tensors: Tensors, operation: str, memory_format: torch.memory_format) -> Call:
    x, dy = (as_tensor(array, tensors.layout) for array in (tensors.x, tensors.dy))
    return engine_torch.torch_call(tensors.layer, operation, x, dy, memory_format)


def as_tensor(array: np.ndarray, layout: str) -> torch.Tensor:
    """Return a channels-first tensor view of the array."""
    tensor = torch.from_numpy(array)
    return tensor.movedim(-1, 1) if layout == "NHWC" else tensor
