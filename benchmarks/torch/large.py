"""The first pooling layer of ResNet-18: a module against the client, and a step against PyTorch."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

import pooling_client.torch
import pooling_engine
from benchmarks import report
from benchmarks.torch.timing import Timed, compared, quartiles
from examples import train_digits
from pooling_client import BackwardCall, ForwardCall, PoolingClient, PoolSpec
from pooling_client.torch import _ops
from pooling_wire import BACKWARD, FORWARD

STEM_SHAPE, STEM = (32, 64, 112, 112), (3, 2, 1)
STEP_ROUNDS = 15


def step(module: Any, x: Tensor, dy: Tensor) -> None:
    """Compute forward and backward."""
    torch.autograd.grad(module(x), x, dy)


def module_over_client(address: str, rounds: int) -> dict[str, Any]:
    """Compare a module with the client, forward without indices.

    "ratio" compares calls in turns, so other programs disturb one or the other. "within" is the
    module's call over the client's call that it contains.
    """
    spec = PoolSpec.from_torch(nn.MaxPool2d(*STEM))
    x = torch.relu(torch.randn(STEM_SHAPE))
    module = pooling_client.torch.MaxPool2d(*STEM, server=address)
    with PoolingClient(address) as client, torch.no_grad():
        row = compared(
            {"module": lambda: module(x), "client": lambda: client.forward(x.numpy(), spec)},
            "module",
            "client",
            rounds,
        )
        timed = Timed(client)
        with mock.patch.object(_ops, "client_of", return_value=timed):
            within = []
            for _ in range(rounds):
                (taken_ms,) = report.samples(lambda: module(x), 1)
                within.append(taken_ms / (1e3 * timed.seconds))
    return row | {"within": quartiles(within)}


def training_step(address: str) -> dict[str, Any]:
    """Compare forward and backward with those of PyTorch and of the engine in this process."""
    x = torch.relu(torch.randn(STEM_SHAPE)).requires_grad_()
    dy = torch.randn(32, 64, 56, 56)
    modules = {
        "remote": pooling_client.torch.MaxPool2d(*STEM, server=address),
        "engine": train_digits.ENGINE.MaxPool2d(*STEM),
        "torch.nn": nn.MaxPool2d(*STEM),
    }
    calls = {name: lambda module=module: step(module, x, dy) for name, module in modules.items()}
    return compared(calls, "remote", "torch.nn", STEP_ROUNDS)


def bytes_of_a_step() -> dict[str, int]:
    """Return the bytes of the four messages of a training step."""
    spec = PoolSpec.from_torch(nn.MaxPool2d(*STEM))
    x = np.maximum(np.random.default_rng(0).standard_normal(STEM_SHAPE, dtype=np.float32), 0)
    result = pooling_engine.forward(x, spec, return_indices=True)
    backward = BackwardCall(result.output, spec, x.shape, result.indices)
    gradient = pooling_engine.backward(
        result.output, spec, input_shape=x.shape, indices=result.indices
    )
    return {
        "input": x.nbytes,
        "forward sends": len(FORWARD.encode_request(ForwardCall(x, spec, True))),
        "forward receives": len(FORWARD.encode_response(result)),
        "backward sends": len(BACKWARD.encode_request(backward)),
        "backward receives": len(BACKWARD.encode_response(gradient)),
    }
