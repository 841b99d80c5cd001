"""Gradients of first and second order: finite differences, bits of the engine, bytes sent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import pooling_engine
from pooling_client import PoolSpec
from pooling_client._transports.sync import GrpcTransport
from pooling_client.torch import functional

WINDOWS = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 1, "ceil_mode": True},
]
DIFFERENTIABLE: list[tuple[str, dict[str, Any]]] = [
    *(
        (name, window)
        for name in ("max_pool", "min_pool", "avg_pool", "sum_pool")
        for window in WINDOWS
    ),
    ("max_pool", {"kernel_size": 2, "dilation": 2}),
    ("avg_pool", {"kernel_size": 3, "padding": 1, "count_include_pad": False}),
    ("adaptive_avg_pool", {"output_size": 3}),
    ("adaptive_max_pool", {"output_size": 3}),
]
STEM = {"kernel_size": 3, "stride": 2, "padding": 1}


def distinct(*shape: int) -> torch.Tensor:
    """Return a tensor without ties, at which max and min are differentiable."""
    count = int(np.prod(shape))
    return torch.randperm(count, dtype=torch.float64).reshape(shape).requires_grad_()


@pytest.mark.usefixtures("address")
@pytest.mark.parametrize(("name", "arguments"), DIFFERENTIABLE, ids=str)
def test_first_and_second_derivatives(name: str, arguments: dict[str, Any]) -> None:
    for rank, x in ((1, distinct(2, 1, 7)), (2, distinct(1, 2, 5, 4))):
        function = getattr(functional, f"{name}{rank}d")
        assert torch.autograd.gradcheck(lambda x, f=function: f(x, **arguments), x)
        assert torch.autograd.gradgradcheck(lambda x, f=function: f(x, **arguments), x)


@pytest.mark.usefixtures("address")
def test_derivatives_in_channels_last() -> None:
    x = distinct(1, 2, 5, 4).detach().to(memory_format=torch.channels_last).requires_grad_()
    for function in (functional.max_pool2d, functional.avg_pool2d):
        assert torch.autograd.gradcheck(lambda x, f=function: f(x, **STEM), x)
        assert torch.autograd.gradgradcheck(lambda x, f=function: f(x, **STEM), x)


@pytest.mark.usefixtures("address")
def test_derivatives_of_unpooling() -> None:
    x = distinct(1, 2, 6, 6)
    y, indices = functional.max_pool2d(x, 2, return_indices=True)
    values = y.detach().requires_grad_()

    def unpooled(values: torch.Tensor) -> torch.Tensor:
        return functional.max_unpool2d(values, indices, 2)

    assert torch.autograd.gradcheck(unpooled, values)
    assert torch.autograd.gradgradcheck(unpooled, values)


@pytest.mark.usefixtures("address")
def test_a_third_derivative_exists() -> None:
    x = distinct(1, 1, 6, 6)
    y = functional.max_pool2d(x, 2).pow(4)
    for _ in range(3):
        (y,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    expected = torch.zeros_like(x)
    expected[0, 0] = 24 * x[0, 0] * (y[0, 0] != 0)
    torch.testing.assert_close(y, expected)


@pytest.mark.usefixtures("address")
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("lp_pool", {"norm_type": 3, "kernel_size": 2}),
        ("max_pool", {"kernel_size": 2, "tie_policy": "split"}),
    ],
    ids=str,
)
def test_layers_that_need_the_input_have_one_derivative(
    name: str, arguments: dict[str, Any]
) -> None:
    x = distinct(1, 1, 4, 4)
    function = getattr(functional, f"{name}2d")
    assert torch.autograd.gradcheck(lambda x: function(x, **arguments), x)
    (dx,) = torch.autograd.grad(function(x, **arguments).sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivatives exist for max, min, average"):
        dx.sum().backward()


@pytest.mark.usefixtures("address")
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_outputs_and_gradients_have_the_bits_of_the_engine(dtype: Any) -> None:
    x = np.random.default_rng(0).standard_normal((4, 8, 21, 22)).astype(dtype)
    for mode, function in (("max", functional.max_pool2d), ("min", functional.min_pool2d)):
        expected = pooling_engine.forward(
            x, PoolSpec(mode, 3, 2, 1), return_indices=True, backend="numpy"
        )
        dy = np.random.default_rng(1).standard_normal(expected.output.shape).astype(dtype)
        gradient = pooling_engine.backward(
            dy,
            PoolSpec(mode, 3, 2, 1),
            input_shape=x.shape,
            indices=expected.indices,
            backend="numpy",
        )
        tensor = torch.from_numpy(x).requires_grad_()
        y = function(tensor, **STEM)
        y.backward(torch.from_numpy(dy))
        np.testing.assert_array_equal(y.detach().numpy(), expected.output)
        np.testing.assert_array_equal(tensor.grad.numpy(), gradient)


@pytest.mark.usefixtures("address")
def test_forward_asks_for_indices_only_for_a_gradient(calls: list[Any]) -> None:
    x = torch.randn(1, 1, 8, 8)
    functional.max_pool2d(x, 2)
    with torch.no_grad():
        functional.max_pool2d(x.requires_grad_(), 2)
    functional.max_pool2d(x, 2).sum().backward()
    assert [(name, options.get("return_indices", False)) for name, _, options in calls] == [
        ("forward", False),
        ("forward", False),
        ("forward", True),
        ("backward", False),
    ]
    assert calls[-1][2]["indices"].dtype == np.uint8
    assert "input" not in calls[-1][2]


@pytest.mark.usefixtures("address")
def test_backward_sends_a_third_of_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """The layer is the first of ResNet-18, with a smaller batch so that a call is one message."""
    x = torch.randn(2, 64, 56, 56, requires_grad=True)
    y = functional.max_pool2d(x, **STEM)
    sent: list[int] = []
    send = GrpcTransport.send

    def counting(self: Any, method: str, request: bytes, timeout_s: float) -> bytes:
        sent.append(len(request))
        return send(self, method, request, timeout_s)

    monkeypatch.setattr(GrpcTransport, "send", counting)
    y.backward(torch.randn_like(y))
    assert len(sent) == 1
    assert sent[0] / (x.numel() * 4) <= 1 / 3


class _Ops(TorchDispatchMode):
    """Names of the ops that PyTorch runs."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        self.names.append(str(function))
        return function(*args, **kwargs or {})


@pytest.mark.usefixtures("address")
def test_backward_creates_no_gradient_of_the_indices() -> None:
    x = torch.randn(1, 1, 4, 4, requires_grad=True)
    output = functional.max_pool2d(x, 2)
    dy = torch.ones_like(output)
    with _Ops() as ops:
        torch.autograd.grad(output, x, dy)
    assert ops.names == ["pooling.scatter.default"]
