"""Faults during `fit`, with the backend that `KERAS_BACKEND` names; `test_faults.py` runs them."""

from __future__ import annotations

import itertools
import os
import subprocess
from typing import Any

import keras
import numpy as np

import pooling_client.keras as remote
from tests.keras.checks import network, normal, raised
from tests.support.processes import SERVE
from tests.support.waiting import quiet_port

ADDRESS = f"127.0.0.1:{quiet_port()}"
BATCH, STEPS = 8, 4
X, Y = normal(BATCH * STEPS, 8, 8, 1), np.arange(BATCH * STEPS) % 2


class Server:
    """Server process at one address, which can be killed and started again."""

    def __enter__(self) -> Server:
        self.start()
        return self

    def start(self) -> None:
        """Start the process; calls wait until it listens."""
        flags = ("--listen", ADDRESS, "--backend", "numpy")
        self._process = subprocess.Popen([*SERVE, *flags], stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def __exit__(self, *_: object) -> None:
        self.kill()


class At(keras.callbacks.Callback):
    """Calls a function before one step, and records the weights before each step."""

    def __init__(self, step: int, function: Any) -> None:
        super().__init__()
        self._step, self._function = step, function
        self.before: list[Any] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.before = state(self.model)
        if batch == self._step:
            self._function()


def compiled() -> Any:
    model = network(remote)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
    return model


def fit(model: Any, *callbacks: Any, first: int = 0) -> None:
    """Train with the steps of one epoch, from the given one on."""
    x, y = X[first * BATCH :], Y[first * BATCH :]
    model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0, callbacks=list(callbacks))


def state(model: Any) -> list[Any]:
    """Return copies of the weights and of the variables of the optimizer."""
    variables = [*model.variables, *model.optimizer.variables]
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def assert_equal(some: list[Any], others: list[Any]) -> None:
    assert len(some) == len(others) > 0
    assert all(itertools.starmap(np.array_equal, zip(some, others, strict=True)))


def fail_at(step: int, model: Any, server: Server) -> None:
    """Train until the server is gone for good: one clear error, and unchanged variables."""
    remote.connect(ADDRESS, timeout=30)
    kill = At(step, lambda: (server.kill(), remote.connect(ADDRESS, timeout=1)))

    def train() -> None:
        with remote.RestoreVariables() as restore:
            fit(model, restore, kill)

    text = raised(train)
    assert "UnavailableError: " in text
    assert text.count(f"no server answers at {ADDRESS}") == 1, text
    assert_equal(state(model), kill.before)


def main() -> None:
    os.environ["POOLING_TARGET"] = ADDRESS
    with Server() as server:
        remote.connect(ADDRESS, timeout=30)
        undisturbed = compiled()
        fit(undisturbed)
        after_one = state(undisturbed)
        fit(undisturbed)

        def restart() -> None:
            server.kill()
            server.start()

        model = compiled()
        fit(model, At(1, restart))  # the step waits for the new server
        assert_equal(state(model), after_one)

        for step in (0, 2):  # Keras treats the first step of an epoch in another way
            fail_at(step, model, server)
            server.start()
        remote.connect(ADDRESS, timeout=30)
        fit(model, first=2)  # training continues
        assert_equal(state(model), state(undisturbed))
    print(f"checked with {keras.backend.backend()}")


if __name__ == "__main__":
    main()
