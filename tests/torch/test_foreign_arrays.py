"""Tensors of PyTorch as arguments of the engine and of the clients."""

from __future__ import annotations

import asyncio
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import pooling_engine
from pooling_client import AsyncPoolingClient, PoolingClient
from pooling_engine import InvalidTensorError, PoolSpec

SPEC = PoolSpec("max", 2)
X = np.arange(2 * 3 * 8 * 8, dtype=np.float32).reshape(2, 3, 8, 8)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("form", ["plain", "channels_last", "strided", "unit_axis"])
def test_tensors_as_in_training(dtype, form):
    x = torch.from_numpy(X.copy()).to(getattr(torch, dtype))
    tensor = {
        "plain": lambda: x,
        "channels_last": lambda: x.to(memory_format=torch.channels_last),
        "strided": lambda: torch.stack([x, -x], -1)[..., 0],
        "unit_axis": lambda: x.unsqueeze(2).expand(2, 3, 1, 8, 8)[:, :, 0],
    }[form]()
    numpy_type = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    expected = pooling_engine.forward(X.astype(numpy_type), SPEC).output
    actual = pooling_engine.forward(tensor, SPEC).output
    np.testing.assert_array_equal(actual, expected, strict=True)


def test_a_bfloat16_tensor_is_not_copied():
    tensor = torch.zeros(1, 1, 4, 4, dtype=torch.bfloat16)
    call = pooling_engine.ForwardCall(tensor, SPEC)
    assert call.input.ctypes.data == tensor.data_ptr()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_tensor_as_out(dtype):
    x = torch.from_numpy(X.copy()).to(getattr(torch, dtype))
    out = torch.empty(2, 3, 4, 4, dtype=x.dtype)
    result = pooling_engine.forward(x, SPEC, out=out).output
    assert torch.equal(out, torch.nn.functional.max_pool2d(x, 2))
    assert result.ctypes.data == out.data_ptr()


@pytest.mark.parametrize("field", ["input", "out"])
def test_a_tensor_that_requires_a_gradient_is_rejected(field):
    tensor = torch.ones(1, 1, 4, 4).requires_grad_()
    arguments = (tensor, None) if field == "input" else (np.ones((1, 1, 8, 8), "f4"), tensor)
    with pytest.raises(InvalidTensorError, match=rf"{field} requires a gradient.*detach\(\)"):
        pooling_engine.forward(arguments[0], SPEC, out=arguments[1])


def test_a_sparse_tensor_is_rejected():
    with pytest.raises(InvalidTensorError, match=r"input is torch.sparse_coo.*to_dense\(\)"):
        pooling_engine.forward(torch.ones(1, 1, 4, 4).to_sparse(), SPEC)


def test_a_tensor_without_data_is_rejected():
    with pytest.raises(InvalidTensorError, match=r"input is on device meta"):
        pooling_engine.forward(torch.ones(1, 1, 4, 4, device="meta"), SPEC)


def test_a_tensor_out_of_another_shape_is_rejected():
    with pytest.raises(InvalidTensorError, match="out must be a writable C-contiguous"):
        pooling_engine.forward(X, SPEC, out=torch.empty(2, 3, 4, 5))


@pytest.mark.parametrize("dtype", ["bool", "uint16", "bfloat16"])
def test_clients_take_tensors(dtype: str, address: str) -> None:
    tensor = torch.from_numpy(X.copy()).to(getattr(torch, dtype))

    async def output() -> Any:
        async with AsyncPoolingClient(address) as client:
            return (await client.forward(tensor, SPEC)).output

    with PoolingClient(address) as client:
        expected = client.forward(np.from_dlpack(tensor) if dtype != "bfloat16" else tensor, SPEC)
    np.testing.assert_array_equal(asyncio.run(output()), expected.output, strict=True)
    largest = torch.nn.functional.max_pool2d(tensor.float(), 2)
    np.testing.assert_array_equal(expected.output.astype(np.float32), largest.numpy())
