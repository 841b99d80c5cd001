"""Comparison of a training step with remote pooling and one with local pooling."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from pooling_cli.demo.server import address_in, running_server

TOLERANCE = 1e-9  # of float64, relative to the largest: averages round differently
BATCH = 2


@contextmanager
def serving(server: str | None) -> Iterator[str]:
    """Yield the target of a server: the given one, or one that runs until the end."""
    if server is not None:
        yield server
        return
    command = (sys.executable, "-m", "pooling_server", "--listen", "127.0.0.1:0")
    with running_server(command) as banner:
        yield address_in(banner)


def images(size: int) -> Tensor:
    """Return random images of shape (BATCH, 3, size, size), always equal."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(BATCH, 3, size, size, generator=generator, dtype=torch.float64)


def step(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Return the loss of a batch and the gradients of the parameters."""
    labels = torch.arange(len(x))
    loss = nn.functional.cross_entropy(model(x), labels)
    return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


def compare(
    local: nn.Module,
    remote: nn.Module,
    x: Tensor,
    context: AbstractContextManager[object] | None = None,
) -> None:
    """Print how far the remote loss and gradients are from the local ones.

    Args:
        local: model with local pooling.
        remote: model with the same parameters.
        x: batch of images.
        context: context manager of the remote step; `pooling_client.torch.remote` for a model that
            pools inside `forward`.

    Raises:
        SystemExit: a gradient differs by more than `TOLERANCE`.
    """
    expected = step(local, x)
    with context or nullcontext():
        actual = step(remote, x)
    pairs = list(zip(actual, expected, strict=True))
    worst = max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)
    print(f"loss {actual[0].item():.4f}; local {expected[0].item():.4f}")
    print(f"{len(pairs) - 1} gradients differ by at most {worst:.1e} of their largest element")
    if worst > TOLERANCE:
        raise SystemExit(f"a gradient differs by more than {TOLERANCE:g}")
