"""Train a LeNet-like network on handwritten digits, with every pooling layer on a server.

    $ python -m examples.train_digits --figure docs/train-digits.png

The same training runs three times: with remote pooling, with `pooling_engine` in this process, and
with `torch.nn`. Remote and in-process results must be bit-identical; those of `torch.nn` agree
within `TOLERANCE`. Without ``--server``, the program starts a server.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import pooling_client.torch
import pooling_engine
from examples.comparing import serving
from examples.running import above_zero, errors_in_one_line
from pooling_engine import PoolSpec

EPOCHS = 8
BATCH = 64
TOLERANCE = 1e-5  # of losses and weights against torch.nn, whose sums round differently
PARTS = ("pooling forward", "pooling backward", "other forward", "other backward", "optimizer")


class _EngineCall(torch.autograd.Function):
    """Pooling by the engine in this process."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, spec: PoolSpec) -> Tensor:
        selects = spec.mode in ("max", "min")
        result = pooling_engine.forward(x.numpy(), spec, return_indices=selects)
        ctx.spec, ctx.shape, ctx.indices = spec, x.shape, result.indices
        return torch.from_numpy(result.output)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        given = {"input_shape": ctx.shape, "indices": ctx.indices}
        return torch.from_numpy(pooling_engine.backward(dy.numpy(), ctx.spec, **given)), None


def _engine_layer(module: nn.Module) -> Callable[..., nn.Module]:
    """Return a class with the arguments of a module of PyTorch that pools with the engine."""

    class Layer(nn.Module):
        def __init__(self, *arguments: Any) -> None:
            super().__init__()
            self.spec = PoolSpec.from_torch(module(*arguments))

        def forward(self, x: Tensor) -> Tensor:
            pooled: Tensor = _EngineCall.apply(x, self.spec)
            return pooled

    return Layer


ENGINE = SimpleNamespace(
    MaxPool2d=_engine_layer(nn.MaxPool2d), AvgPool2d=_engine_layer(nn.AvgPool2d)
)


KINDS = {"remote": pooling_client.torch, "engine in process": ENGINE, "torch.nn": nn}


def network(layers: Any) -> nn.Sequential:
    """Return the network, with the pooling classes of a namespace. Its weights are always equal."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        layers.MaxPool2d(3, 2, 1),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        layers.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def batches(epochs: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of images (N, 1, 8, 8) and labels, in an order that is always equal."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for chosen in order[: len(order) // BATCH * BATCH].split(BATCH):
            yield images[chosen], labels[chosen]


@dataclass
class Run:
    """Record of one training.

    Attributes:
        losses: loss of each step.
        gradients: gradients of the parameters in the last step.
        weights: parameters after the last step.
        seconds: time by part, over all steps.
    """

    losses: list[float] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    seconds: Counter[str] = field(default_factory=Counter)


class Trainer:
    """Training of one network, step by step.

    Args:
        layers: namespace with the pooling classes.

    Attributes:
        model: the network.
        run: record of the training so far.
    """

    def __init__(self, layers: Any) -> None:
        self.model = network(layers)
        self.run = Run()
        self._optimizer = torch.optim.SGD(self.model.parameters(), 0.05, momentum=0.9)
        for module in self.model:
            if isinstance(module, layers.MaxPool2d | layers.AvgPool2d):
                self._time(module)

    def step(self, images: Tensor, labels: Tensor) -> float:
        """Train on one batch and return its loss. After an error, nothing has changed."""
        self._optimizer.zero_grad()
        seconds, begin = Counter[str](), time.perf_counter()
        self._pooling = Counter[str]()
        loss = nn.functional.cross_entropy(self.model(images), labels)
        forward = time.perf_counter()
        loss.backward()
        backward = time.perf_counter()
        self._optimizer.step()
        seconds["optimizer"] = time.perf_counter() - backward
        seconds["other forward"] = forward - begin - self._pooling["pooling forward"]
        seconds["other backward"] = backward - forward - self._pooling["pooling backward"]
        self.run.seconds += seconds + self._pooling
        self.run.losses.append(loss.item())
        return loss.item()

    def finish(self) -> Run:
        """Return the record of the training."""
        parameters = list(self.model.parameters())
        self.run.gradients = [each.grad.clone() for each in parameters if each.grad is not None]
        self.run.weights = [each.detach().clone() for each in parameters]
        return self.run

    def _time(self, module: nn.Module) -> None:
        started: dict[str, float] = {}

        def start(part: str) -> Callable[..., None]:
            return lambda *_: started.update({part: time.perf_counter()})

        def stop(part: str) -> Callable[..., None]:
            return lambda *_: self._pooling.update({part: time.perf_counter() - started[part]})

        module.register_forward_pre_hook(start("pooling forward"))
        module.register_forward_hook(stop("pooling forward"))
        module.register_full_backward_pre_hook(start("pooling backward"))
        module.register_full_backward_hook(stop("pooling backward"))


def train(kinds: dict[str, Any], epochs: int = EPOCHS) -> dict[str, Run]:
    """Train one network with each kind of layers, in turns step by step, and return the records.

    Args:
        kinds: namespace with the pooling classes, by name.
        epochs: number of passes over the digits.
    """
    trainers = {name: Trainer(layers) for name, layers in kinds.items()}
    for images, labels in batches(epochs):
        for trainer in trainers.values():
            trainer.step(images, labels)
    return {name: trainer.finish() for name, trainer in trainers.items()}


def bits_differ(first: Run, second: Run) -> bool:
    """Return whether losses, gradients or weights differ in any bit."""
    pairs = zip(first.gradients + first.weights, second.gradients + second.weights, strict=True)
    return first.losses != second.losses or not all(torch.equal(a, b) for a, b in pairs)


def largest_difference(first: Run, second: Run) -> float:
    """Return the largest absolute difference of a loss or a weight."""
    losses = max(abs(a - b) for a, b in zip(first.losses, second.losses, strict=True))
    weights = zip(first.weights, second.weights, strict=True)
    return max(losses, *((a - b).abs().max().item() for a, b in weights))


def draw(runs: dict[str, Run], path: str) -> None:
    """Draw the loss curves, and the time per step by part."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    styles = ({"linewidth": 4, "alpha": 0.4}, {"linewidth": 1.5}, {"linestyle": ":"})
    for (name, run), style in zip(runs.items(), styles, strict=True):
        left.plot(run.losses, label=name, **style)
    left.set(xlabel="step", ylabel="loss", yscale="log", title="Loss")
    left.legend()
    start = dict.fromkeys(runs, 0.0)
    for part in PARTS:
        widths = {name: 1000 * run.seconds[part] / len(run.losses) for name, run in runs.items()}
        right.barh(list(runs), list(widths.values()), left=list(start.values()), label=part)
        start = {name: start[name] + width for name, width in widths.items()}
    right.set(xlabel="ms per step", title="Time per step")
    right.invert_yaxis()
    right.legend(loc="upper center", bbox_to_anchor=(0.4, -0.18), ncols=3, frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Train three times, compare the results and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--server", help="target of the server; by default, one is started")
    parser.add_argument("--figure", help="file for the figure")
    parser.add_argument("--epochs", type=above_zero, default=EPOCHS)
    options = parser.parse_args()
    with serving(options.server) as address:
        os.environ["POOLING_TARGET"] = address
        pooling_engine.warm_up()
        runs = train(KINDS, options.epochs)
    remote, engine, torch_nn = runs.values()
    if bits_differ(remote, engine):
        raise SystemExit("remote and in-process results differ")
    difference = largest_difference(remote, torch_nn)
    if difference > TOLERANCE:
        raise SystemExit(f"torch.nn differs by {difference:.2g}, more than {TOLERANCE:g}")
    for name, run in runs.items():
        parts = {part: 1000 * run.seconds[part] / len(run.losses) for part in PARTS}
        shown = ", ".join(f"{part} {ms:.2f}" for part, ms in parts.items())
        print(f"{name}: loss {run.losses[-1]:.4f}; ms per step: {shown}")
    print(f"remote and engine: bit-identical; torch.nn: at most {difference:.2g} apart")
    if options.figure:
        draw(runs, options.figure)


if __name__ == "__main__":
    with errors_in_one_line():
        main()
