"""Measure remote pooling modules: calls, bytes and training steps.

    python -m benchmarks.torch

Writes results/torch.json and prints the tables. Takes a minute and a half.
"""

from __future__ import annotations

import re
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import pooling_client.torch
import pooling_engine
from benchmarks import report
from examples import train_digits
from pooling_cli.demo.server import running_server
from pooling_client import BackwardCall, ForwardCall, PoolingClient, PoolSpec
from pooling_wire import BACKWARD, FORWARD

STEM_SHAPE, STEM = (32, 64, 112, 112), (3, 2, 1)  # the first pooling of ResNet-18
SMALL = {
    "max": ((64, 8, 8, 8), "MaxPool2d", (3, 2, 1)),
    "average": ((64, 16, 4, 4), "AvgPool2d", (2,)),
}
ROUNDS, SMALL_ROUNDS, SMALL_CALLS = 7, 9, 100
GOALS = {  # ratio of the first contender to the last, at most
    "module over client, TCP": 1.03,
    "module over client, Unix socket": 1.03,
    "step over PyTorch, Unix socket": 1.0,
}


def step(module: Any, x: Tensor, dy: Tensor) -> None:
    """Compute forward and backward."""
    torch.autograd.grad(module(x), x, dy)


def module_over_client(address: str) -> dict[str, Any]:
    """Compare a module with the client, forward without indices."""
    spec = PoolSpec.from_torch(nn.MaxPool2d(*STEM))
    x = torch.relu(torch.randn(STEM_SHAPE))
    module = pooling_client.torch.MaxPool2d(*STEM, server=address)
    with PoolingClient(address) as client, torch.no_grad():
        calls: dict[str, Callable[[], Any]] = {
            "module": lambda: module(x),
            "client": lambda: client.forward(x.numpy(), spec),
        }
        return compared(calls, "module", "client")


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
    return compared(calls, "remote", "torch.nn")


def compared(calls: dict[str, Callable[[], Any]], one: str, other: str) -> dict[str, Any]:
    """Time calls in turns; add the ratio of two of them within each round."""
    for call in calls.values():
        call()
    taken = report.interleaved(list(calls), ROUNDS, lambda name: report.samples(calls[name], 1)[0])
    ratios = [a / b for a, b in zip(taken[one], taken[other], strict=True)]
    return {
        "ms": {name: report.spread(values) for name, values in taken.items()},
        "ratio": report.spread(ratios),
    }


def bytes_of_a_step() -> dict[str, int]:
    """Return the bytes of the four messages of a training step of the ResNet layer."""
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


def small_calls(servers: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Return microseconds per call of the four pooling calls in one step of the digits example."""
    rows = {}
    for mode, (shape, module, arguments) in SMALL.items():
        local = {"torch.nn": nn, "engine": train_digits.ENGINE}
        pools = {name: getattr(layers, module)(*arguments) for name, layers in local.items()}
        remote = getattr(pooling_client.torch, module)
        pools |= {name: remote(*arguments, server=target) for name, target in servers.items()}
        x = torch.randn(shape, requires_grad=True)
        for direction, calls in calls_of(pools, x).items():
            taken = report.interleaved(list(calls), SMALL_ROUNDS, partial(microseconds, calls))
            rows[f"{direction} {mode}"] = {
                name: report.spread(values) for name, values in taken.items()
            }
    return rows


def calls_of(pools: dict[str, Any], x: Tensor) -> dict[str, dict[str, Callable[[], Any]]]:
    """Return the forward and the backward call of each pooling module."""
    outputs = {name: pool(x) for name, pool in pools.items()}
    dy = torch.randn_like(outputs["torch.nn"])
    gradient = partial(torch.autograd.grad, inputs=x, grad_outputs=dy, retain_graph=True)
    return {
        "forward": {name: partial(pool, x) for name, pool in pools.items()},
        "backward": {name: partial(gradient, y) for name, y in outputs.items()},
    }


def microseconds(calls: dict[str, Callable[[], Any]], name: str) -> float:
    """Return the median duration of some calls."""
    return 1e3 * statistics.median(report.samples(calls[name], SMALL_CALLS))


def measure() -> dict[str, Any]:
    """Return all rows."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pooling-"))
        unix = f"unix:{folder}/s"
        command = (sys.executable, "-m", "pooling_server", "--listen", f"127.0.0.1:0,{unix}")
        banner = stack.enter_context(running_server(command))
        tcp = re.split("[ ,]", banner.partition("listening on ")[2])[0]
        pooling_engine.warm_up()
        bytes_ = bytes_of_a_step()
        return {
            "module over client, TCP": module_over_client(tcp),
            "module over client, Unix socket": module_over_client(unix),
            "step over PyTorch, Unix socket": training_step(unix),
            "bytes": bytes_,
            "small calls, us": small_calls({"remote, TCP": tcp, "remote, Unix socket": unix}),
        }


def markdown(rows: dict[str, Any]) -> str:
    """Return the tables of the results."""
    bytes_ = rows["bytes"]
    goals = [[name, report.cell(rows[name]["ratio"]), f"{goal:g}"] for name, goal in GOALS.items()]
    share = bytes_["backward sends"] / bytes_["input"]
    goals.append(["bytes that backward sends over bytes of the input", f"{share:.4f}", "0.3333"])
    times = [
        [name, each, report.cell(ms)] for name in GOALS for each, ms in rows[name]["ms"].items()
    ]
    sizes = [[name, f"{count / 1e6:.2f}"] for name, count in bytes_.items()]
    small = rows["small calls, us"]
    contenders = list(next(iter(small.values())))
    calls = [
        [call, *(report.cell(values[name]) for name in contenders)]
        for call, values in small.items()
    ]
    tables = [
        report.table(["ratio", "measured", "at most"], goals, "---:"),
        report.table(["row", "contender", "ms"], times, "---:"),
        report.table(["tensors and messages of a step", "MB"], sizes, "---:"),
        report.table(["call in a LeNet step, us", *contenders], calls, "---:"),
    ]
    return "\n".join(tables)


if __name__ == "__main__":
    measured = measure()
    report.write("torch", "python -m benchmarks.torch", measured)
    print(markdown(measured))
