"""`replace` and `remote`: models that pool in modules, and models that pool inside `forward`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

import pooling_client.torch as remote
from pooling_client.torch import replace


class Shared(nn.Module):
    """One pooling module under two names, in nested containers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.MaxPool2d(2)
        self.block = nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.ModuleDict({"again": self.first})["again"]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(self.first(x))


class Custom(nn.MaxPool2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        return super().forward(input) + 1


def model() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        nn.AvgPool2d(2, divisor_override=3),
        nn.LPPool2d(2, 2, 1),
        Custom(2, 1),
        nn.AdaptiveAvgPool2d((None, 2)),
        nn.AdaptiveMaxPool2d(1),
    )


X = torch.randn(2, 3, 24, 24)


def test_a_model_computes_the_same_after_replacement(address: str) -> None:
    torch.manual_seed(0)
    net = model()
    expected = net(X)
    swapped, report = replace(net, address)
    assert swapped is net
    torch.testing.assert_close(net(X), expected)
    assert [type(layer).__module__ for layer in net][1:] == [
        "pooling_client.torch.modules",
        "pooling_client.torch.modules",
        "torch.nn.modules.pooling",
        __name__,
        "pooling_client.torch.modules",
        "pooling_client.torch.modules",
    ]
    assert [row.name for row in report.swapped] == ["1", "2", "5", "6"]
    assert "the first is selected (PyTorch: the last)" in report.swapped[0].note
    assert "float64 (PyTorch: float32)" in report.swapped[1].note
    assert [(row.name, row.note.partition(":")[0]) for row in report.left] == [
        ("3", "would differ"),
        ("4", "is a subclass, Custom, which may override forward"),
    ]
    assert str(report).startswith("4 pooling modules swapped, 2 left alone\nswapped 1: MaxPool2d(")


def test_lp_pool_is_swapped_on_request(address: str) -> None:
    net, report = replace(nn.Sequential(nn.LPPool2d(3, 2)), address, lp_pool=True)
    y = net(-X.abs())
    torch.testing.assert_close(y, nn.LPPool2d(3, 2)(X.abs()))  # PyTorch's own gives NaN or signs
    assert "signed powers" in report.swapped[0].note


def test_filter_chooses_by_module_and_name(address: str) -> None:
    seen: list[str] = []

    def only_average(module: nn.Module, name: str) -> bool:
        seen.append(name)
        return isinstance(module, nn.AvgPool2d)

    _, report = replace(model(), address, only_average)
    assert seen == ["1", "2", "5", "6"]
    assert [row.name for row in report.swapped] == ["2"]
    assert report.left[0].note == "filter_fn returned False"


def test_shared_modules_stay_shared(address: str) -> None:
    net = Shared()
    expected = net(X[:, :1])
    _, report = replace(net, address)
    assert net.first is net.block[1]
    assert len(report.rows) == 1
    torch.testing.assert_close(net(X[:, :1]), expected)


def test_hooks_and_training_flag_survive(address: str) -> None:
    pool = nn.MaxPool2d(2).eval()
    pool.register_forward_hook(lambda module, inputs, output: output + 1)
    twin, report = replace(pool, address)
    assert isinstance(twin, remote.MaxPool2d)
    assert not twin.training
    assert report.swapped[0].name == ""
    torch.testing.assert_close(twin(X), pool(X))


def test_remote_modules_and_random_windows_are_left(address: str) -> None:
    net = nn.Sequential(remote.MaxPool2d(2), nn.FractionalMaxPool2d(2, output_size=3), nn.ReLU())
    _, report = replace(net, address)
    assert [row.note for row in report.left] == [
        "is a remote module already",
        "has random windows, which no spec expresses",
    ]


def test_wrong_arguments_of_replace() -> None:
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, not int"):
        replace(3, None)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="server must be a string"):
        replace(nn.ReLU(), 50051)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="server must be a string"):
        remote.remote(50051)  # type: ignore[arg-type]


def pooled_in_forward(x: torch.Tensor) -> list[torch.Tensor]:
    """Pool in the ways of Inception v3, DenseNet, MobileNetV2 and others."""
    y, indices = F.max_pool2d(x, 2, return_indices=True)
    return [
        F.avg_pool2d(x, kernel_size=3, stride=1, padding=1),
        F.max_pool2d(x, kernel_size=3, stride=2),
        torch.max_pool2d(x, 3, 2),
        F.max_pool2d_with_indices(x, 2)[1],
        F.adaptive_avg_pool2d(x, (1, 1)).flatten(1),
        F.adaptive_max_pool2d(x, 3, return_indices=True)[1],
        F.max_unpool2d(y, indices, 2, output_size=x.shape),
        nn.MaxPool2d(3, 2, 1)(x),
        nn.AvgPool2d(2)(x),
        F.max_pool1d(x[0], 2),
        F.avg_pool1d(x[0], 2),
        torch.adaptive_max_pool1d(x[0], 3)[1],
        F.adaptive_avg_pool1d(x[0], 3),
        F.avg_pool3d(x, 2),
        F.max_pool3d(x[None], (1, 2, 2)),
        F.adaptive_avg_pool3d(x[None], (None, 2, 2)),
    ]


def test_calls_inside_forward_are_redirected(address: str, calls: list[Any]) -> None:
    expected = pooled_in_forward(X)
    assert calls == []
    with remote.remote(address):
        actual = pooled_in_forward(X)
    assert len(calls) == len(actual) + 1
    torch.testing.assert_close(actual, expected)
    pooled_in_forward(X)
    assert len(calls) == len(actual) + 1


def test_other_calls_stay_local(address: str, calls: list[Any]) -> None:
    with remote.remote(address):
        F.lp_pool2d(X, 2, 2)
        F.fractional_max_pool2d(X, 2, output_size=3)
        X.mean([2, 3])
        nn.Conv2d(3, 4, 3)(X)
    assert calls == []


def test_gradients_of_redirected_calls(address: str, calls: list[Any]) -> None:
    gradients = []
    for server in (address, None):
        x = X.clone().requires_grad_()
        if server:
            with remote.remote(server):
                y = F.max_pool2d(F.avg_pool2d(x, 2), 3, 2)
        else:
            y = F.max_pool2d(F.avg_pool2d(x, 2), 3, 2)
        y.square().sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)
    assert [name for name, _, _ in calls] == ["forward", "forward", "backward", "backward"]


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_redirection_is_compiled(address: str, calls: list[Any]) -> None:
    torch._dynamo.reset()

    @torch.compile(fullgraph=True, backend="aot_eager")
    def function(x: torch.Tensor) -> torch.Tensor:
        with remote.remote(address):
            return F.avg_pool2d(nn.functional.max_pool2d(x, 2), 2)

    torch.testing.assert_close(function(X), F.avg_pool2d(F.max_pool2d(X, 2), 2))
    assert len(calls) == 2
