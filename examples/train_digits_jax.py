"""Train a LeNet-like network on handwritten digits in JAX, with every pooling layer on a server.

    $ python -m examples.train_digits_jax

The same training runs with remote pooling and with `pooling_engine` in this process. Losses,
gradients and weights must be bit-identical. Without ``--server``, the program starts a server.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import pooling_client.jax
import pooling_engine
from examples.running import above_zero, errors_in_one_line
from pooling_cli.demo.server import address_in, running_server
from pooling_engine import PoolSpec

EPOCHS = 4
BATCH = 64
RATE, MOMENTUM = 0.05, 0.9
Pool = Callable[[jax.Array], jax.Array]


def remote_max(x: jax.Array) -> jax.Array:
    """Pool on the server."""
    return pooling_client.jax.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


def remote_average(x: jax.Array) -> jax.Array:
    """Pool on the server."""
    return pooling_client.jax.avg_pool(x, (2, 2), (2, 2))


def engine_pool(spec: PoolSpec) -> Pool:
    """Return a function that pools with the engine in this process."""

    def forward(x: Any) -> Any:
        return pooling_engine.forward(np.asarray(x), spec).output

    def backward(dy: Any, x: Any) -> Any:
        given = {"input": np.asarray(x)} if spec.mode == "max" else {"input_shape": np.shape(x)}
        return pooling_engine.backward(np.asarray(dy), spec, **given)

    @jax.custom_vjp
    def pool(x: jax.Array) -> jax.Array:
        plan = pooling_engine.plan(spec, x.shape, x.dtype)
        form = jax.ShapeDtypeStruct(plan.output_shape, x.dtype)
        pooled: jax.Array = jax.pure_callback(forward, form, x)
        return pooled

    def gradient(x: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
        return (jax.pure_callback(backward, jax.ShapeDtypeStruct(x.shape, x.dtype), dy, x),)

    pool.defvjp(lambda x: (pool(x), x), gradient)
    return pool


ENGINE = (
    engine_pool(PoolSpec("max", 3, 2, 1, layout="channels_last")),
    engine_pool(PoolSpec("average", 2, 2, layout="channels_last")),
)
KINDS = {"remote": (remote_max, remote_average), "engine in process": ENGINE}


def first_weights() -> dict[str, Any]:
    """Return the weights before the first step, which are always equal."""
    random = np.random.default_rng(0)
    shapes = {"conv1": (3, 3, 1, 8), "conv2": (3, 3, 8, 16), "linear": (64, 10)}
    weights: dict[str, Any] = {}
    for name, shape in shapes.items():
        scale = (2 / np.prod(shape[:-1])) ** 0.5
        weights[name] = jnp.asarray(scale * random.standard_normal(shape), jnp.float32)
        weights[f"{name} bias"] = jnp.zeros(shape[-1])
    return weights


def loss_of(weights: Any, images: jax.Array, labels: jax.Array, pools: tuple[Pool, Pool]) -> Any:
    """Return the mean cross-entropy of the network."""
    x = images
    for name, pool in zip(("conv1", "conv2"), pools, strict=True):
        x = jax.lax.conv_general_dilated(
            x, weights[name], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = pool(jax.nn.relu(x + weights[f"{name} bias"]))
    logits = x.reshape(len(x), -1) @ weights["linear"] + weights["linear bias"]
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
    return -chosen.mean()


def batches(epochs: int) -> Iterator[tuple[jax.Array, jax.Array]]:
    """Yield batches of images (N, 8, 8, 1) and labels, in an order that is always equal."""
    digits = load_digits()
    images = (digits.images[..., None] / 16).astype(np.float32)
    random = np.random.default_rng(0)
    for _ in range(epochs):
        order = random.permutation(len(images))
        for start in range(0, len(order) // BATCH * BATCH, BATCH):
            chosen = order[start : start + BATCH]
            yield jnp.asarray(images[chosen]), jnp.asarray(digits.target[chosen])


@dataclass
class Trainer:
    """Training of one network, step by step.

    Attributes:
        pools: functions of the two pooling layers.
        weights: parameters after the last step.
        gradients: gradients of the parameters in the last step.
        losses: loss of each step.
    """

    pools: tuple[Pool, Pool]
    weights: dict[str, Any] = field(default_factory=first_weights)
    gradients: dict[str, Any] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._velocity = jax.tree.map(jnp.zeros_like, self.weights)
        self._gradient = jax.jit(
            jax.value_and_grad(lambda *arguments: loss_of(*arguments, self.pools))
        )

    def step(self, images: jax.Array, labels: jax.Array) -> float:
        """Train on one batch and return its loss. After an error, nothing has changed."""
        loss, gradients = self._gradient(self.weights, images, labels)
        jax.block_until_ready((loss, gradients))
        self._velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, self._velocity, gradients)
        self.weights = jax.tree.map(lambda w, v: w - RATE * v, self.weights, self._velocity)
        self.gradients = gradients
        self.losses.append(float(loss))
        return self.losses[-1]


def bits_differ(first: Trainer, second: Trainer) -> bool:
    """Return whether losses, gradients or weights differ in any bit."""
    trees = [jax.tree.leaves((each.gradients, each.weights)) for each in (first, second)]
    equal = all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(*trees, strict=True)
    )
    return first.losses != second.losses or not equal


def main() -> None:
    """Train twice and compare the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--server", help="target of the server; by default, one is started")
    parser.add_argument("--epochs", type=above_zero, default=EPOCHS)
    options = parser.parse_args()
    if options.server:
        train(options.server, options.epochs)
        return
    command = (sys.executable, "-m", "pooling_server", "--listen", "127.0.0.1:0")
    with running_server(command) as banner:
        train(address_in(banner), options.epochs)


def train(server: str, epochs: int) -> None:
    """Train one network with each kind of pooling, in turns step by step, and compare them."""
    os.environ["POOLING_TARGET"] = server
    trainers = {name: Trainer(pools) for name, pools in KINDS.items()}
    for images, labels in batches(epochs):
        for trainer in trainers.values():
            trainer.step(images, labels)
    if bits_differ(*trainers.values()):
        raise SystemExit("remote and in-process results differ")
    for name, trainer in trainers.items():
        print(f"{name}: loss {trainer.losses[0]:.4f} to {trainer.losses[-1]:.4f}")
    print(f"remote and engine: bit-identical after {len(trainer.losses)} steps")


if __name__ == "__main__":
    with errors_in_one_line(jax.errors.JaxRuntimeError):
        main()
