"""Max and min of bool, uint16, uint32 and uint64: outputs and indices equal those of NumPy."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

import pooling_engine
from pooling_client import AsyncPoolingClient, InvalidTensorError, PoolingClient, PoolSpec
from pooling_server import PoolingServer

RNG = np.random.default_rng(7)
TYPES = ("bool", "uint16", "uint32", "uint64")


def extremes(dtype: str, shape: tuple[int, ...]) -> Any:
    """Return random elements of a type, among them its smallest and its largest."""
    if dtype == "bool":
        return RNG.random(shape) < 0.3
    most = np.iinfo(dtype).max
    x = RNG.integers(0, most, shape, dtype, endpoint=True)
    flat = x.reshape(-1)
    flat[::7], flat[3::11], flat[5::13] = most, 0, most // 2 + 1
    return x


def expected(x: Any, mode: str) -> Any:
    """Return the windows' extremes by NumPy alone, for a kernel and stride of 2."""
    n, c, h, w = x.shape
    windows = x.reshape(n, c, h // 2, 2, w // 2, 2).swapaxes(3, 4).reshape(n, c, h // 2, w // 2, 4)
    pick = windows.argmax(-1) if mode == "max" else windows.argmin(-1)
    return np.take_along_axis(windows, pick[..., None], -1)[..., 0], pick


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("dtype", TYPES)
def test_selected_elements_and_indices(dtype: str, mode: str, client: PoolingClient) -> None:
    x, spec = extremes(dtype, (2, 3, 8, 6)), PoolSpec(mode, 2)
    output, indices = expected(x, mode)
    swapped = x.astype(x.dtype.newbyteorder(">"))
    for same in (x, np.asfortranarray(x), swapped):
        result = client.forward(same, spec, return_indices=True)
        np.testing.assert_array_equal(result.output, output, strict=True)
        np.testing.assert_array_equal(result.indices, indices)
    out = np.empty_like(output)
    assert client.forward(x, spec, out=out).output is out
    np.testing.assert_array_equal(out, output)


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("dtype", TYPES)
def test_a_window_without_elements_has_the_limit_of_the_type(
    dtype: str, mode: str, client: PoolingClient
) -> None:
    spec = PoolSpec(mode, kernel=2, dilation=4, padding=3)
    x = extremes(dtype, (1, 1, 2, 2))
    floats = pooling_engine.forward(x.astype(np.float64), spec).output
    is_empty = np.isinf(floats)
    assert is_empty.any()
    output = client.forward(x, spec).output
    least, most = (False, True) if dtype == "bool" else (0, np.iinfo(dtype).max)
    assert (output[is_empty] == (least if mode == "max" else most)).all()


def test_the_asyncio_client(server: PoolingServer) -> None:
    x = extremes("bool", (1, 2, 4, 4))

    async def call() -> Any:
        async with AsyncPoolingClient(server.address) as client:
            return (await client.forward(x, PoolSpec("max", 2))).output

    output, _ = expected(x, "max")
    np.testing.assert_array_equal(asyncio.run(call()), output, strict=True)


LAYERS = [PoolSpec("max", 2), PoolSpec("min", 2), PoolSpec("max", 3, 1)]


@pytest.mark.parametrize("dtype", TYPES)
def test_several_layers(dtype: str, client: PoolingClient, server: PoolingServer) -> None:
    x = extremes(dtype, (2, 3, 8, 6))
    results = client.forward_all(x, LAYERS, return_indices=[True, True, False])
    for result, mode in zip(results[:2], ("max", "min"), strict=True):
        output, indices = expected(x, mode)
        np.testing.assert_array_equal(result.output, output, strict=True)
        np.testing.assert_array_equal(result.indices, indices)
    np.testing.assert_array_equal(results[2].output, client.forward(x, LAYERS[2]).output)

    async def call() -> Any:
        async with AsyncPoolingClient(server.address) as client:
            return await client.forward_all(x, LAYERS)

    for result, same in zip(results, asyncio.run(call()), strict=True):
        np.testing.assert_array_equal(result.output, same.output, strict=True)


@pytest.mark.parametrize("dtype", TYPES)
def test_several_layers_of_other_modes_reject_them(dtype: str, client: PoolingClient) -> None:
    with pytest.raises(InvalidTensorError, match=f"the element type is {dtype}; it must be one"):
        client.forward_all(extremes(dtype, (1, 1, 4, 4)), [LAYERS[0], PoolSpec("average", 2)])


@pytest.mark.parametrize("mode", ["sum", "average", "lp"])
@pytest.mark.parametrize("dtype", TYPES)
def test_other_modes_reject_them(dtype: str, mode: str, client: PoolingClient) -> None:
    with pytest.raises(InvalidTensorError, match=f"the element type is {dtype}; it must be one"):
        client.forward(extremes(dtype, (1, 1, 4, 4)), PoolSpec(mode, 2))


def test_an_output_of_another_type_is_rejected(client: PoolingClient) -> None:
    x = extremes("uint16", (1, 1, 4, 4))
    with pytest.raises(InvalidTensorError, match="out must be a writable C-contiguous uint16"):
        client.forward(x, PoolSpec("max", 2), out=np.empty((1, 1, 2, 2), np.int16))
