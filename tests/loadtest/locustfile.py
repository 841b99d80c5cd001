"""Users for `test_locust.py`: right calls, calls that fail, and calls whose check fails."""

from __future__ import annotations

from typing import Any

import gevent
import numpy as np
from locust import constant, events, task
from locust.env import Environment
from locust.runners import MasterRunner

import pooling_engine
from pooling_client import PoolSpec
from pooling_client.locust import PoolingUser

SPEC = PoolSpec("max", kernel=2)
X = np.arange(128, dtype=np.float32).reshape(1, 2, 8, 8)
FOUND = pooling_engine.forward(X, SPEC, return_indices=True)


ENOUGH = 80


def stop_when_done(environment: Environment) -> None:
    """Stop the test as soon as the workers have reported enough calls of each kind."""
    runner = environment.runner
    assert runner is not None
    while len(runner.stats.entries) < 4 or runner.stats.total.num_requests < ENOUGH:
        gevent.sleep(0.1)
    runner.quit()


@events.init.add_listener
def watch(environment: Environment, **_: Any) -> None:
    if isinstance(environment.runner, MasterRunner):
        gevent.spawn(stop_when_done, environment)


class Layer(PoolingUser):
    wait_time = constant(0.02)
    verify = 1.0

    @task
    def step(self) -> None:
        self.forward(X, SPEC, return_indices=True, timeout=20)
        self.backward(FOUND.output, SPEC, input_shape=X.shape, indices=FOUND.indices)
        self.forward(X[0, 0, 0], SPEC, name="rejected", timeout=20)
        self._report("wrong", 0, lambda: X, lambda: X + 1)
