"""Several layers of one tensor: outputs, gradients, requests, tracing and errors."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import pooling_client.torch as remote
from pooling_client import InvalidSpecError, PoolingClient, UnsupportedError
from pooling_client.torch import InvalidInputError, InvalidOptionError, PoolAll, functional

pytestmark = pytest.mark.usefixtures("address")
SPP = [nn.MaxPool2d(kernel, 1, kernel // 2) for kernel in (3, 5)]
PYRAMID = [nn.AdaptiveAvgPool2d(size) for size in (1, 2, (None, 3))]
BRANCHES = [nn.AvgPool2d(3, 1, 1), nn.MaxPool2d(3, 2), nn.AdaptiveMaxPool2d(2)]
INPUTS = {
    "batch": torch.randn(2, 3, 9, 8),
    "single": torch.randn(3, 9, 8),
    "channels last": torch.randn(2, 3, 9, 8).to(memory_format=torch.channels_last),
}


@pytest.fixture
def layers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the number of layers of each call of `forward_all`."""
    seen: list[int] = []
    forward_all = PoolingClient.forward_all

    def recorded(self: PoolingClient, x: Any, specs: Any, **options: Any) -> Any:
        seen.append(len(specs))
        return forward_all(self, x, specs, **options)

    monkeypatch.setattr(PoolingClient, "forward_all", recorded)
    return seen


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("modules", [SPP, PYRAMID, BRANCHES], ids=["spp", "pyramid", "branches"])
def test_outputs_and_gradients_are_those_of_separate_layers(
    modules: list[nn.Module], kind: str, layers: list[int]
) -> None:
    x = INPUTS[kind].clone().requires_grad_()
    twins = remote.replace(nn.ModuleList(copy.deepcopy(modules)), None)[0]
    outputs, expected = PoolAll(modules)(x), [twin(x) for twin in twins]
    assert layers == [len(modules)]
    for output, other in zip(outputs, expected, strict=True):
        assert torch.equal(output, other)
        assert output.stride() == other.stride()
    weights = [torch.randn_like(output) for output in expected]
    (gradient,) = torch.autograd.grad(outputs, x, weights)
    parts = [torch.autograd.grad(y, x, dy)[0] for y, dy in zip(expected, weights, strict=True)]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    assert torch.equal(gradient, total)


@pytest.mark.parametrize("dtype", ["bool", "uint16", "uint32", "uint64"])
def test_bool_and_unsigned_tensors(dtype: str) -> None:
    x = torch.tensor([0, 1, 2, 3, 7, 6, 5, 4] * 2).reshape(1, 1, 4, 4).to(getattr(torch, dtype))
    ours = [remote.MaxPool2d(2), remote.MinPool2d(2)]
    outputs = PoolAll(ours)(x)
    for output, module, few in zip(outputs, ours, ([7, 5, 7, 5], [0, 2, 0, 2]), strict=True):
        assert output.dtype is x.dtype
        assert output.flatten().tolist() == torch.tensor(few).to(x.dtype).tolist()
        assert torch.equal(output, module(x))
    indices = functional.max_pool2d(x, 2, return_indices=True)[1]
    assert indices.dtype is torch.int64
    with pytest.raises(InvalidInputError, match=f'torch.{dtype}; for the mode "average"'):
        PoolAll([*ours, nn.AvgPool2d(2)])(x)


def test_unused_outputs_cost_no_gradient(calls: list[Any]) -> None:
    x = torch.randn(1, 2, 6, 6, requires_grad=True)
    PoolAll(SPP)(x)[1].sum().backward()
    assert [name for name, *_ in calls] == ["backward"]
    expected = torch.autograd.grad(SPP[1](x).sum(), x)[0]
    torch.testing.assert_close(x.grad, expected)


def test_layers_that_need_the_input() -> None:
    ours = [remote.LPPool2d(2, 2), remote.MaxPool2d(2, tie_policy="split"), remote.MinPool2d(2)]
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: tuple(PoolAll(ours)(t)), x)
    smooth = [BRANCHES[0], ours[2]]
    assert torch.autograd.gradgradcheck(lambda t: tuple(PoolAll(smooth)(t)), x)


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_opcheck_and_compile() -> None:
    text = "window=sliding;mode=max|window=adaptive;mode=average"
    x = torch.randn(2, 3, 9, 8, requires_grad=True)
    arguments = (x, text, [3, 2, 1, 1, 1, 2, 2, 1, 0, 0, 4, 3], True, "")
    checks = torch.library.opcheck(torch.ops.pooling.forward_all, arguments)
    assert set(checks.values()) == {"SUCCESS"}, checks
    graph = torch.export.export(PoolAll(BRANCHES), (x.detach(),))
    for traced, output in zip(graph.module()(x), PoolAll(BRANCHES)(x), strict=True):
        assert torch.equal(traced, output)


def test_modules_can_be_copied_and_pickled() -> None:
    module, x = PoolAll(BRANCHES), torch.randn(1, 2, 6, 6)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert all(map(torch.equal, twin(x), module(x)))


@pytest.mark.parametrize(
    ("modules", "error", "text"),
    [
        ([], InvalidOptionError, "layers is empty"),
        (nn.MaxPool2d(2), TypeError, "layers must be a list of modules, not MaxPool2d"),
        ([nn.MaxPool2d(2), "b"], TypeError, r"layers\[1\] must be a module, not str"),
        ([nn.MaxPool2d(2), nn.LPPool2d(2, 2)], UnsupportedError, r"layers\[1\]: LPPool2d"),
        ([nn.Linear(2, 2)], InvalidOptionError, "layers has a Linear"),
        ([nn.MaxPool2d(2), nn.MaxPool1d(2)], InvalidOptionError, r"\[1, 2\] axes"),
        ([nn.MaxPool2d(2, return_indices=True)], InvalidOptionError, "return_indices is True"),
        ([nn.LPPool2d(2, 2)], UnsupportedError, "LPPool2d"),
        ([nn.FractionalMaxPool2d(2, 2)], UnsupportedError, "FractionalMaxPool2d"),
        ([nn.BatchNorm2d(2)], InvalidSpecError, "BatchNorm2d"),
    ],
)
def test_invalid_layers_are_rejected(modules: Any, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        PoolAll(modules)


def test_errors_name_the_layer() -> None:
    with pytest.raises(InvalidOptionError, match=r"layers\[1\]: spatial axis 0"):
        PoolAll([nn.MaxPool2d(2), nn.MaxPool2d(7)])(torch.randn(1, 1, 4, 4))
