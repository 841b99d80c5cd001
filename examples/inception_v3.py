"""Run one training step of Inception v3 with all of its pooling on a server.

    $ python -m examples.inception_v3

The network pools inside `forward`, by calls of `torch.nn.functional`; `remote` redirects them. The
loss and the gradients are compared with those of local pooling, in float64. Without ``--server``,
the program starts a server.
"""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  the usual name
from torch.utils._python_dispatch import TorchDispatchMode

from examples.comparing import compare, images, serving
from examples.running import errors_in_one_line
from pooling_client.torch import remote

SIZE = 107  # of an image; 299 in the paper


class Conv(nn.Sequential):
    """Convolution, batch normalisation and ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int | tuple[int, int], **options: int):
        pad = kernel // 2 if isinstance(kernel, int) else tuple(size // 2 for size in kernel)
        arguments: dict[str, Any] = {"padding": pad, "bias": False, **options}
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, **arguments),
            nn.BatchNorm2d(outputs, eps=0.001),
            nn.ReLU(),
        )


def chain(inputs: int, *layers: tuple[int, int | tuple[int, int]], stride: int = 1) -> nn.Module:
    """Return convolutions of (outputs, kernel); the last has the stride, then without padding."""
    convs = []
    for number, (outputs, kernel) in enumerate(layers):
        is_last = number == len(layers) - 1
        options = {"stride": stride, "padding": 0} if is_last and stride > 1 else {}
        convs.append(Conv(inputs, outputs, kernel, **options))
        inputs = outputs
    return nn.Sequential(*convs)


class Mixed(nn.Module):
    """Inception block: branches of convolutions, and a branch that pools.

    Args:
        branches: the branches of convolutions.
        after: convolution after average pooling; None for max pooling with stride 2.
    """

    def __init__(self, branches: list[nn.Module], after: nn.Module | None = None) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of all branches, along the channel axis."""
        outputs = [branch(x) for branch in self.branches]
        if self.after is None:
            outputs.append(F.max_pool2d(x, kernel_size=3, stride=2))
        else:
            outputs.append(self.after(F.avg_pool2d(x, kernel_size=3, stride=1, padding=1)))
        return torch.cat(outputs, 1)


class Fork(nn.Module):
    """Two convolutions of the same input, of 1 x 3 and 3 x 1."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.wide, self.high = Conv(inputs, outputs, (1, 3)), Conv(inputs, outputs, (3, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return both outputs, along the channel axis."""
        return torch.cat([self.wide(x), self.high(x)], 1)


def mixed_35(inputs: int, pooled: int) -> Mixed:
    """Return a block on the 35 x 35 grid."""
    branches = [
        chain(inputs, (64, 1)),
        chain(inputs, (48, 1), (64, 5)),
        chain(inputs, (64, 1), (96, 3), (96, 3)),
    ]
    return Mixed(branches, Conv(inputs, pooled, 1))


def mixed_17(width: int) -> Mixed:
    """Return a block on the 17 x 17 grid, of 1 x 7 and 7 x 1 convolutions."""
    wide, high = (1, 7), (7, 1)
    branches = [
        chain(768, (192, 1)),
        chain(768, (width, 1), (width, wide), (192, high)),
        chain(768, (width, 1), (width, high), (width, wide), (width, high), (192, wide)),
    ]
    return Mixed(branches, Conv(768, 192, 1))


def mixed_8(inputs: int) -> Mixed:
    """Return a block on the 8 x 8 grid."""
    branches = [
        chain(inputs, (320, 1)),
        nn.Sequential(Conv(inputs, 384, 1), Fork(384, 384)),
        nn.Sequential(chain(inputs, (448, 1), (384, 3)), Fork(384, 384)),
    ]
    return Mixed(branches, Conv(inputs, 192, 1))


class InceptionV3(nn.Module):
    """Inception v3 without its auxiliary classifier.

    Source: Szegedy et al., "Rethinking the Inception architecture for computer vision", 2015.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            Conv(3, 32, 3, stride=2, padding=0), Conv(32, 32, 3, padding=0), Conv(32, 64, 3)
        )
        self.middle = nn.Sequential(Conv(64, 80, 1), Conv(80, 192, 3, padding=0))
        wide, high = (1, 7), (7, 1)
        self.blocks = nn.Sequential(
            mixed_35(192, 32),
            mixed_35(256, 64),
            mixed_35(288, 64),
            Mixed(
                [chain(288, (384, 3), stride=2), chain(288, (64, 1), (96, 3), (96, 3), stride=2)]
            ),
            mixed_17(128),
            mixed_17(160),
            mixed_17(160),
            mixed_17(192),
            Mixed(
                [
                    chain(768, (192, 1), (320, 3), stride=2),
                    chain(768, (192, 1), (192, wide), (192, high), (192, 3), stride=2),
                ]
            ),
            mixed_8(1280),
            mixed_8(2048),
        )
        self.classifier = nn.Linear(2048, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images of shape (N, 3, H, W)."""
        x = F.max_pool2d(self.stem(x), kernel_size=3, stride=2)
        x = F.max_pool2d(self.middle(x), kernel_size=3, stride=2)
        x = F.adaptive_avg_pool2d(self.blocks(x), 1)
        logits: Tensor = self.classifier(x.flatten(1))
        return logits


class RemoteCalls(TorchDispatchMode):
    """Count of the pooling operators that run on a server, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counter[str]()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function.namespace == "pooling":
            self.counts[function.name()] += 1
        return function(*args, **(kwargs or {}))


def main() -> None:
    """Redirect the pooling calls, print how many there are, and compare one step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--server", help="target of the server; by default, one is started")
    options = parser.parse_args()
    torch.manual_seed(0)
    model, x = InceptionV3().double(), images(SIZE)
    with serving(options.server) as address:
        calls = RemoteCalls()
        with calls:
            compare(model, model, x, remote(address))
    for name, count in calls.counts.items():
        print(f"{name}: {count} calls")


if __name__ == "__main__":
    with errors_in_one_line():
        main()
