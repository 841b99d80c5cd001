"""Run one training step of ResNet-18 with its pooling layers on a server.

    $ python -m examples.resnet18

`replace` swaps the pooling modules. The loss and the gradients are compared with those of the same
network with local pooling, in float64: averages round differently, in the last bits. Without
``--server``, the program starts a server.
"""

from __future__ import annotations

import argparse
import copy

import torch
from torch import Tensor, nn

from examples.comparing import compare, images, serving
from examples.running import errors_in_one_line
from pooling_client.torch import replace

SIZE = 64  # of an image; 224 in the paper
WIDTHS = (64, 128, 256, 512)


class Block(nn.Module):
    """Basic residual block: two convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the block."""
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet18(classes: int = 1000) -> nn.Sequential:
    """Return ResNet-18 (He et al., "Deep residual learning for image recognition", 2015)."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    inputs = WIDTHS[0]
    for width in WIDTHS:
        layers += [Block(inputs, width, 1 if width == inputs else 2), Block(width, width, 1)]
        inputs = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)]
    return nn.Sequential(*layers)


def main() -> None:
    """Swap the pooling modules, print the report, and compare one step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--server", help="target of the server; by default, one is started")
    options = parser.parse_args()
    torch.manual_seed(0)
    local = resnet18().double()
    with serving(options.server) as address:
        remote, report = replace(copy.deepcopy(local), address)
        print(report)
        compare(local, remote, images(SIZE))


if __name__ == "__main__":
    with errors_in_one_line():
        main()
