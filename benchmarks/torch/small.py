"""The four pooling calls in a LeNet step, of modules and of the client."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

import pooling_client.torch
from benchmarks.torch.timing import Calls, microseconds
from examples import train_digits
from pooling_client import PoolingClient, PoolSpec
from pooling_client._training.clients import client_of

SMALL = {
    "max": ((64, 8, 8, 8), "MaxPool2d", (3, 2, 1)),
    "average": ((64, 16, 4, 4), "AvgPool2d", (2,)),
}
ROUNDS, REPEATS = 25, 20


def small_calls(servers: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Return microseconds per call of the four pooling calls in one step of the digits example."""
    rows = {}
    for mode, (shape, module, arguments) in SMALL.items():
        local = {"torch.nn": nn, "engine": train_digits.ENGINE}
        pools = {name: getattr(layers, module)(*arguments) for name, layers in local.items()}
        remote = getattr(pooling_client.torch, module)
        pools |= {
            f"module, {name}": remote(*arguments, server=server) for name, server in servers.items()
        }
        x = torch.randn(shape, requires_grad=True)
        outputs = {name: pool(x) for name, pool in pools.items()}
        dy = torch.randn_like(outputs["torch.nn"])
        gradient = partial(torch.autograd.grad, inputs=x, grad_outputs=dy, retain_graph=True)
        forward: Calls = {name: partial(pool, x) for name, pool in pools.items()}
        backward: Calls = {name: partial(gradient, y) for name, y in outputs.items()}
        for name, server in servers.items():
            client = client_of(server)
            spec = PoolSpec.from_torch(getattr(nn, module)(*arguments))
            calls = client_calls(client, spec, x.detach().numpy(), dy.numpy(), mode)
            forward[f"client, {name}"], backward[f"client, {name}"] = calls
        rows[f"forward {mode}"] = microseconds(forward, ROUNDS, REPEATS)
        rows[f"backward {mode}"] = microseconds(backward, ROUNDS, REPEATS)
    return rows


def client_calls(
    client: PoolingClient, spec: PoolSpec, x: Any, dy: Any, mode: str
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return the calls of the client that a module makes in a training step."""
    has_indices = mode == "max"
    forward = partial(client.forward, x, spec, return_indices=has_indices)
    indices = forward().indices
    return forward, partial(client.backward, dy, spec, input_shape=x.shape, indices=indices)
