"""The time that a module adds to the call of its client, and what other ways to call would add.

The client returns at once. "cold" calls follow a copy of 100 MB, as those of a large layer do:
the code and data of PyTorch and Python are not in the caches of the CPU then.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

import pooling_client.torch
from benchmarks import report
from benchmarks.torch.timing import Calls, microseconds, quartiles
from pooling_client import ForwardResult
from pooling_client.torch import _calling, _ops, functional

SHAPE, LAYER, SERVER = (64, 8, 8, 8), (3, 2, 1), "unix:/none"
ROUNDS, REPEATS = 25, 160
COLD_BYTES = 100 << 20
_LIBRARY = torch.library.Library("pooling_benchmark", "FRAGMENT")  # its ops live as long as it


class Canned(NamedTuple):
    """Client that returns prepared results."""

    output: Any
    indices: Any
    gradient: Any

    def forward(self, x: Any, spec: Any, return_indices: bool = False) -> ForwardResult:
        return ForwardResult(self.output, self.indices if return_indices else None)

    def backward(self, dy: Any, spec: Any, **residual: Any) -> Any:
        return self.gradient


def own_part() -> dict[str, dict[str, Any]]:
    """Return microseconds per call: repeated, and cold."""
    x = torch.randn(SHAPE)
    leaf, y = x.clone().requires_grad_(), nn.MaxPool2d(*LAYER)(x)
    canned = Canned(y.numpy(), np.zeros(y.shape, np.uint8), np.zeros(SHAPE, np.float32))
    with mock.patch.object(_ops, "client_of", return_value=canned):
        calls = ways(x) | steps(leaf, y)
        return {"repeated": microseconds(calls, ROUNDS, REPEATS), "cold": cold(calls)}


def steps(leaf: Tensor, dy: Tensor) -> Calls:
    """Return the calls of a training step."""
    module = pooling_client.torch.MaxPool2d(*LAYER, server=SERVER)
    output = module(leaf)
    return {
        "module with gradient": partial(module, leaf),
        "its backward": partial(torch.autograd.grad, output, leaf, dy, retain_graph=True),
    }


def ways(x: Tensor) -> Calls:
    """Return ways to call the client without a gradient."""
    options, sizes = _calling.sliding({"mode": "max"}, 2, *LAYER)
    arguments = (x, _calling.with_layout(options, x), sizes, SERVER)
    direct: Callable[..., Tensor] = _ops.forward._init_fn  # the function that the op wraps

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Tensor:
            return direct(*arguments)

    _LIBRARY.define("forward(Tensor x, str text, int[] sizes, str server) -> Tensor")
    _LIBRARY.impl("forward", direct, "CompositeExplicitAutograd")
    calls: Calls = {
        "module": partial(pooling_client.torch.MaxPool2d(*LAYER, server=SERVER), x),
        "function": partial(functional.max_pool2d, x, *LAYER, server=SERVER),
        "op": partial(_ops.forward, *arguments),
        "op without autograd": partial(torch.ops.pooling_benchmark.forward.default, *arguments),
        "autograd.Function": partial(Function.apply, *arguments),
        "no op": partial(direct, *arguments),
    }
    return {name: torch.no_grad()(call) for name, call in calls.items()}


def cold(calls: Calls) -> dict[str, dict[str, float]]:
    """Return microseconds of calls that follow a copy."""
    source = np.zeros(COLD_BYTES, np.uint8)
    target = np.empty_like(source)

    def measure(name: str) -> float:
        np.copyto(target, source)
        return 1e3 * report.samples(calls[name], 1)[0]

    taken = report.interleaved(list(calls), ROUNDS, measure)
    return {name: quartiles(values) for name, values in taken.items()}
