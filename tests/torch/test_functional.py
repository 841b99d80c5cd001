"""Functions and modules against those of PyTorch, over tables of arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

import pooling_client.torch as remote
import pooling_engine
from pooling_client import PoolSpec
from pooling_client.torch import functional

SHAPES = {1: (2, 3, 17), 2: (2, 3, 9, 10), 3: (2, 2, 5, 6, 7)}

# Arguments of modules, by family: valid for every rank.
ARGUMENTS: dict[str, list[dict[str, Any]]] = {
    "MaxPool": [
        {"kernel_size": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 3, "stride": 1, "padding": 1, "ceil_mode": True},
        {"kernel_size": 2, "stride": 3, "dilation": 2, "ceil_mode": True},
        {"kernel_size": (3,), "stride": (2,)},
    ],
    "AvgPool": [
        {"kernel_size": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
        {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
        {"kernel_size": 3, "ceil_mode": True, "count_include_pad": False},
    ],
    "AdaptiveAvgPool": [{"output_size": 1}, {"output_size": 3}, {"output_size": 4}],
    "AdaptiveMaxPool": [{"output_size": 1}, {"output_size": 3}, {"output_size": 4}],
}
# And arguments for one rank.
RANKED: list[tuple[str, dict[str, Any]]] = [
    ("MaxPool2d", {"kernel_size": (2, 3), "stride": (1, 2), "padding": (1, 0)}),
    ("MaxPool3d", {"kernel_size": (1, 2, 3), "dilation": (1, 2, 1)}),
    ("AvgPool2d", {"kernel_size": (2, 3), "divisor_override": 5}),
    ("AvgPool3d", {"kernel_size": 2, "padding": 1, "divisor_override": -2}),
    ("AdaptiveAvgPool2d", {"output_size": (None, 7)}),
    ("AdaptiveAvgPool2d", {"output_size": (5, None)}),
    ("AdaptiveMaxPool3d", {"output_size": (None, 2, None)}),
    ("AdaptiveMaxPool2d", {"output_size": (4, 3)}),
]
CASES = [
    (f"{family}{rank}d", arguments)
    for family, table in ARGUMENTS.items()
    for rank in (1, 2, 3)
    for arguments in table
] + RANKED


def pair(name: str, arguments: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    """Return our module and PyTorch's."""
    return getattr(remote, name)(**arguments), getattr(nn, name)(**arguments)


def both(ours: Any, theirs: Any, *tensors: torch.Tensor) -> tuple[list[Any], list[Any]]:
    """Return output and input gradient of two functions of the same tensors."""
    results = []
    for function in (ours, theirs):
        x = tensors[0].clone(memory_format=torch.preserve_format).requires_grad_()
        y = function(x, *tensors[1:])
        (dx,) = torch.autograd.grad(y, x, torch.linspace(-1, 2, y.numel()).reshape(y.shape).to(y))
        results.append([y.detach(), dx])
    return results[0], results[1]


@pytest.mark.usefixtures("address")
@pytest.mark.parametrize(("name", "arguments"), CASES, ids=str)
def test_outputs_and_gradients_equal_pytorchs(name: str, arguments: dict[str, Any]) -> None:
    rank = int(name[-2])
    exact = "Max" in name
    for shape in (SHAPES[rank], SHAPES[rank][1:]):  # with a batch axis, and without
        x = torch.randn(shape, dtype=torch.float64)
        for actual, expected in zip(*both(*pair(name, arguments), x), strict=True):
            tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-12, "atol": 1e-13}
            torch.testing.assert_close(actual, expected, **tolerance)


@pytest.mark.usefixtures("address")
@pytest.mark.parametrize(
    ("name", "arguments"), [case for case in CASES if "Max" in case[0]], ids=str
)
def test_indices_equal_pytorchs(name: str, arguments: dict[str, Any]) -> None:
    ours, theirs = pair(name, arguments | {"return_indices": True})
    shape = SHAPES[int(name[-2])]
    for x in (torch.randn(shape), torch.randn(shape[1:]), torch.randn(shape).requires_grad_()):
        for actual, expected in zip(ours(x), theirs(x), strict=True):
            torch.testing.assert_close(actual, expected, rtol=0, atol=0)


# Errors in units of the type's own epsilon: an average is rounded once on the server.
@pytest.mark.usefixtures("address")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    "name", ["MaxPool2d", "AvgPool2d", "AdaptiveMaxPool2d", "AdaptiveAvgPool2d"]
)
def test_element_types(name: str, dtype: torch.dtype) -> None:
    ours, theirs = pair(name, {"output_size": 3} if "Adaptive" in name else {"kernel_size": 3})
    x = torch.randn(2, 3, 9, 9, dtype=dtype)
    for actual, expected in zip(*both(ours, theirs, x), strict=True):
        assert actual.dtype is dtype
        epsilon = torch.finfo(dtype).eps
        tolerance = 0 if "Max" in name else 2 * epsilon
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("address")
def test_integers() -> None:
    x = torch.randint(-100, 100, (2, 3, 8, 8), dtype=torch.int32)
    pooled = functional.max_pool2d(x, 2)
    expected = F.max_pool2d(x.double(), 2).int()
    torch.testing.assert_close(pooled, expected, rtol=0, atol=0)
    assert functional.sum_pool2d(x, 2).dtype is torch.int64
    average = functional.avg_pool2d(x, 2)
    torch.testing.assert_close(average, F.avg_pool2d(x.float(), 2), rtol=0, atol=0)


FORMATS = [(2, torch.channels_last), (3, torch.channels_last_3d)]


@pytest.mark.usefixtures("address")
@pytest.mark.parametrize(("rank", "memory_format"), FORMATS)
@pytest.mark.parametrize("family", ["MaxPool", "AvgPool"])
def test_channels_last_is_preserved_without_a_copy(
    family: str, rank: int, memory_format: torch.memory_format, calls: list[Any]
) -> None:
    ours, theirs = pair(f"{family}{rank}d", {"kernel_size": 3, "stride": 2, "padding": 1})
    x = torch.randn(SHAPES[rank]).to(memory_format=memory_format).requires_grad_()
    y = ours(x)
    dy = torch.randn_like(y)
    (dx,) = torch.autograd.grad(y, x, dy)
    assert [tensor.is_contiguous(memory_format=memory_format) for tensor in (y, dy, dx)] == [
        True
    ] * 3
    assert not y.is_contiguous()
    assert [array.ctypes.data for _, array, _ in calls] == [x.data_ptr(), dy.data_ptr()]
    torch.testing.assert_close(y, theirs(x))
    torch.testing.assert_close(dx, torch.autograd.grad(theirs(x), x, dy)[0])


@pytest.mark.usefixtures("address")
def test_an_image_in_channels_last_stays_so() -> None:
    image = torch.randn(1, 3, 8, 8).to(memory_format=torch.channels_last)[0]
    pooled = functional.max_pool2d(image, 2)
    assert pooled[None].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(pooled, F.max_pool2d(image, 2))


@pytest.mark.usefixtures("address")
def test_strided_views_are_pooled() -> None:
    x = torch.randn(2, 3, 20, 20)
    for view in (x[:, :, ::2, 1::3], x.transpose(2, 3), x.expand(2, 3, 20, 20), x.flip(3)):
        torch.testing.assert_close(functional.max_pool2d(view, 2), F.max_pool2d(view, 2))


@pytest.mark.usefixtures("address")
def test_an_empty_batch() -> None:
    x = torch.empty(0, 3, 8, 8, requires_grad=True)
    y = functional.max_pool2d(x, 2)
    y.sum().backward()
    assert y.shape == (0, 3, 4, 4)
    assert x.grad is not None
    assert x.grad.shape == x.shape


# Arguments, and sizes of the pooled tensor: first the one that is the default of unpooling.
UNPOOLED: list[tuple[dict[str, Any], list[tuple[int, ...]]]] = [
    ({"kernel_size": 2}, [(16,), (17,), (15,)]),
    ({"kernel_size": 2}, [(8, 10), (9, 9), (9, 10)]),
    ({"kernel_size": 2, "stride": 3, "padding": 1}, [(9, 12), (11, 10), (8, 13)]),
    ({"kernel_size": (2, 3), "stride": (3, 4)}, [(8, 11), (9, 12), (10, 10)]),
    ({"kernel_size": 2}, [(4, 6, 6), (5, 6, 5)]),
]


@pytest.mark.usefixtures("address")
@pytest.mark.parametrize(("arguments", "sizes"), UNPOOLED, ids=str)
def test_unpooling_equals_pytorchs(arguments: dict[str, Any], sizes: list[tuple[int, ...]]) -> None:
    rank = len(sizes[0])
    ours, theirs = pair(f"MaxUnpool{rank}d", arguments)
    for size in sizes:
        is_default = size == sizes[0]
        pool = getattr(nn, f"MaxPool{rank}d")
        pool = pool(**arguments, return_indices=True, ceil_mode=not is_default)
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        for output_size in [size, x.shape, None] if is_default else [size, x.shape]:
            for x_or_one in (x, x[0]):
                if output_size is x.shape and x_or_one is not x:
                    continue
                values, indices = pool(x_or_one)
                results = both(
                    lambda y, i=indices, o=output_size: ours(y, i, o),
                    lambda y, i=indices, o=output_size: theirs(y, i, o),
                    values,
                )
                torch.testing.assert_close(*results, rtol=0, atol=0)


@pytest.mark.usefixtures("address")
def test_equal_indices_add_up() -> None:
    values = torch.tensor([[[1.0, 2.0]]])
    indices = torch.tensor([[[1, 1]]])
    unpooled = functional.max_unpool1d(values, indices, 3, 1, output_size=(4,))
    assert unpooled.tolist() == [[[0, 3, 0, 0]]]


@pytest.mark.usefixtures("address")
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_functions_without_a_twin_equal_the_engine(rank: int) -> None:
    cases: list[tuple[str, dict[str, Any], PoolSpec]] = [
        ("min_pool", {"kernel_size": 3, "stride": 2}, PoolSpec("min", 3, 2)),
        ("sum_pool", {"kernel_size": 2, "padding": 1}, PoolSpec("sum", 2, padding=1)),
        ("lp_pool", {"norm_type": 3, "kernel_size": 2}, PoolSpec("lp", 2, norm_p=3)),
        (
            "max_pool",
            {"kernel_size": 2, "tie_policy": "split"},
            PoolSpec("max", 2, tie_policy="split"),
        ),
        (
            "max_pool",
            {"kernel_size": 2, "nan_policy": "ignore"},
            PoolSpec("max", 2, nan_policy="ignore"),
        ),
        (
            "max_pool",
            {"kernel_size": 3, "stride": 2, "padding": "same_upper"},
            PoolSpec("max", 3, 2, padding="same_upper"),
        ),
        (
            "max_pool",
            {"kernel_size": 3, "padding": [(0, 1)]},
            PoolSpec("max", 3, padding=[(0, 1)] * rank),
        ),
    ]
    for name, arguments, spec in cases:
        function = getattr(functional, f"{name}{rank}d")
        x = torch.randn(SHAPES[rank], requires_grad=True)
        y = function(x, **arguments)
        dy = torch.randn_like(y)
        y.backward(dy)
        array = x.detach().numpy()
        np.testing.assert_array_equal(
            y.detach().numpy(), pooling_engine.forward(array, spec, backend="numpy").output
        )
        given = {"input_shape": x.shape} if spec.mode == "sum" else {"input": array}
        np.testing.assert_array_equal(
            x.grad.numpy(), pooling_engine.backward(dy.numpy(), spec, backend="numpy", **given)
        )


@pytest.mark.usefixtures("address")
def test_large_windows_have_wide_indices() -> None:
    for kernel in (15, 16, 40, 257):
        x = torch.randn(1, 2, 2 * kernel, kernel, requires_grad=True)
        ours, theirs = (f.max_pool2d(x, kernel, return_indices=True) for f in (functional, F))
        torch.testing.assert_close(ours, theirs)
        gradients = [torch.autograd.grad(y.sum(), x)[0] for y, _ in (ours, theirs)]
        torch.testing.assert_close(*gradients)
