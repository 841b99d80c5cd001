"""Modules: signatures, copies and files, and the features of PyTorch that wrap a module."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import pooling_client.torch as remote
from pooling_client import PoolSpec
from pooling_client.torch import functional

OURS = {"server", "tie_policy", "nan_policy"}
SUPERSETS = {"AvgPool1d": {"divisor_override"}}
NAMES = [
    f"{family}{rank}d"
    for family in (
        "MaxPool",
        "AvgPool",
        "LPPool",
        "AdaptiveAvgPool",
        "AdaptiveMaxPool",
        "MaxUnpool",
    )
    for rank in (1, 2, 3)
]


def parameters(callable_: Any) -> dict[str, Any]:
    return {
        name: parameter.default
        for name, parameter in inspect.signature(callable_).parameters.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_arguments_and_defaults_are_pytorchs(name: str) -> None:
    ours, theirs = parameters(getattr(remote, name)), parameters(getattr(nn, name))
    added = OURS | SUPERSETS.get(name, set())
    mine = [(key, value) for key, value in ours.items() if key not in added]
    assert mine == list(theirs.items())
    call = [parameters(getattr(module, name).forward) for module in (remote, nn)]
    assert call[0] == call[1]


def test_min_and_sum_follow_max_and_average() -> None:
    for rank in (1, 2, 3):
        assert parameters(getattr(remote, f"MinPool{rank}d")) == parameters(remote.MaxPool2d)
        average = parameters(remote.AvgPool2d)
        del average["count_include_pad"], average["divisor_override"]
        assert parameters(getattr(remote, f"SumPool{rank}d")) == average


def test_every_module_has_a_function() -> None:
    modules = {value.function for value in vars(remote).values() if hasattr(value, "function")}
    functions = {name for name in vars(functional) if name.endswith("d") and "pool" in name}
    assert modules == functions
    assert len(modules) == 24


@pytest.mark.parametrize("family", ["MaxPool", "AvgPool", "MinPool", "SumPool"])
def test_a_module_and_from_torch_make_the_same_call(
    family: str, address: str, calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two translations exist, because `torch.compile` traces one of them; they agree."""
    specs = []
    from pooling_client import PoolingClient

    forward = PoolingClient.forward
    monkeypatch.setattr(
        PoolingClient,
        "forward",
        lambda self, x, spec, **options: specs.append(spec) or forward(self, x, spec, **options),
    )
    module = getattr(remote, f"{family}2d")(3, (2, 1), (1, 0), ceil_mode=True, server=address)
    x = torch.randn(2, 3, 9, 9)
    module(x)
    expected = PoolSpec.from_torch(module)
    plans = [spec.windows(2) for spec in (specs[0], expected)]
    assert plans[0] == plans[1]
    assert (specs[0].mode, specs[0].ceil_mode) == (expected.mode, True)


def test_the_representation_names_the_server() -> None:
    module = remote.MaxPool2d(3, 2, server="h:1")
    assert repr(module) == (
        "MaxPool2d(kernel_size=3, stride=2, padding=0, dilation=1, ceil_mode=False, server='h:1')"
    )


def saved(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


COPIES = [copy.copy, copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module)), saved]


@pytest.mark.parametrize("make_copy", COPIES, ids=["copy", "deepcopy", "pickle", "torch.save"])
def test_copies_work_after_a_call(make_copy: Any, address: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), remote.MaxPool2d(2, server=address))
    x = torch.randn(1, 3, 9, 9)
    expected = model(x)
    torch.testing.assert_close(make_copy(model)(x), expected, rtol=0, atol=0)


def test_hooks_see_the_tensors(address: str) -> None:
    module = remote.MaxPool2d(2, server=address)
    seen: list[Any] = []
    module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    module.register_forward_hook(lambda _, inputs, output: output * 2)
    module.register_full_backward_hook(lambda _, dx, dy: seen.append((dx[0].shape, dy[0].shape)))
    x = torch.randn(1, 1, 4, 4, requires_grad=True)
    y = module(x)
    y.retain_grad()
    y.sum().backward()
    assert seen == [(1, 1, 4, 4), ((1, 1, 4, 4), (1, 1, 2, 2))]
    assert x.grad is not None
    assert x.grad.sum() == 8


def test_autocast_keeps_the_type(address: str) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), remote.MaxPool2d(2, server=address), remote.AvgPool2d(2, server=address)
    )
    seen = []
    model[1].register_forward_hook(
        lambda _, inputs, output: seen.append((inputs[0].dtype, output.dtype))
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = model(torch.randn(2, 3, 14, 14))
    y.float().sum().backward()
    assert seen == [(torch.bfloat16, torch.bfloat16)]
    assert y.dtype is torch.bfloat16
    assert model[0].weight.grad.dtype is torch.float32
    assert model[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_activation_checkpointing(use_reentrant: bool, address: str, calls: list[Any]) -> None:
    block = nn.Sequential(nn.Conv2d(3, 4, 3), remote.MaxPool2d(2, server=address))
    gradients = []
    for call in (block, lambda x: checkpoint(block, x, use_reentrant=use_reentrant)):
        torch.manual_seed(1)
        x = torch.randn(2, 3, 8, 8, requires_grad=True)
        call(x).square().sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)
    names = [name for name, _, _ in calls]
    assert names == ["forward", "backward", "forward", "forward", "backward"]


def test_the_variable_names_the_default_server(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = remote.MaxPool2d(2)
    assert module(torch.zeros(1, 1, 2, 2)).shape == (1, 1, 1, 1)
    monkeypatch.setenv("POOLING_TARGET", "/not/a/target")
    with pytest.raises(RuntimeError, match="target is '/not/a/target'"):
        module(torch.zeros(1, 1, 2, 2))
