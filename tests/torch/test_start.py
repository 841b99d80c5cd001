"""Started calls: overlap, gradients, grad mode and errors."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import nn

import pooling_client.torch as remote
from pooling_client import PoolingClient
from pooling_client.torch import InvalidInputError

pytestmark = pytest.mark.usefixtures("address")
LAYERS = {
    "max": (remote.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 2, 1)),
    "average": (remote.AvgPool2d(2), nn.AvgPool2d(2)),
    "adaptive": (remote.AdaptiveAvgPool2d((2, 3)), nn.AdaptiveAvgPool2d((2, 3))),
}


def test_started_calls_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two calls waits for the other: in turns, they would wait until the barrier breaks."""
    barrier, forward = threading.Barrier(2, timeout=30), PoolingClient.forward

    def together(self: PoolingClient, *arguments: Any, **options: Any) -> Any:
        barrier.wait()
        return forward(self, *arguments, **options)

    monkeypatch.setattr(PoolingClient, "forward", together)
    inputs = [torch.randn(1, 2, 6, 6, requires_grad=True) for _ in range(2)]
    layers = [LAYERS["max"], LAYERS["average"]]
    started = [remote.start(ours, x) for (ours, _), x in zip(layers, inputs, strict=True)]
    for future, (_, theirs), x in zip(started, layers, inputs, strict=True):
        output = future.result()
        torch.testing.assert_close(output, theirs(x))
        (gradient,) = torch.autograd.grad(output.square().sum(), x)
        (expected,) = torch.autograd.grad(theirs(x).square().sum(), x)
        torch.testing.assert_close(gradient, expected)


def test_started_calls_have_the_grad_mode_of_their_caller() -> None:
    x = torch.randn(1, 2, 6, 6, requires_grad=True)
    with torch.no_grad():
        assert not remote.start(LAYERS["max"][0], x).result().requires_grad
    assert remote.start(LAYERS["max"][0], x).result().requires_grad


def test_errors_of_started_calls_are_raised_by_result() -> None:
    started = remote.start(LAYERS["max"][0], torch.randn(2, 2))
    with pytest.raises(InvalidInputError, match="input has 2 axes"):
        started.result()
