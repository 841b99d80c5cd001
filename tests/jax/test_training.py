"""Training: the example, and a server that is killed while a network trains."""

from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest

import pooling_client.jax
from examples import train_digits_jax
from pooling_server import PoolingServer
from tests.support.processes import process
from tests.support.waiting import quiet_port

STEPS = 6


def test_the_example_compares_two_trainings(
    server: PoolingServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--server", server.address, "--epochs", "1"]
    monkeypatch.setattr("sys.argv", ["train_digits_jax", *arguments])
    monkeypatch.setenv("POOLING_TARGET", "set by the example")
    train_digits_jax.main()
    assert "remote and engine: bit-identical after 28 steps" in capsys.readouterr().out


def test_training_continues_after_the_server_was_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{quiet_port()}"
    flags = ("--listen", address, "--backend", "numpy")
    monkeypatch.setenv("POOLING_TARGET", address)
    pooling_client.jax.connect(address, timeout=4)
    batches = list(itertools.islice(train_digits_jax.batches(1), STEPS))
    trainer = train_digits_jax.Trainer(train_digits_jax.KINDS["remote"])
    with process(*flags):
        for images, labels in batches[: STEPS // 2]:
            trainer.step(images, labels)
    before = trainer.weights
    errors = (jax.errors.JaxRuntimeError, ValueError)  # the latter from a compiled function
    with pytest.raises(errors, match=f"(Unavailable|Deadline)Error: .*{address}"):
        trainer.step(*batches[STEPS // 2])
    assert trainer.weights is before
    pooling_client.jax.connect(address, timeout=30)  # a new server needs seconds to start
    with process(*flags):
        for images, labels in batches[STEPS // 2 :]:
            trainer.step(images, labels)
    undisturbed = train_digits_jax.Trainer(train_digits_jax.ENGINE)
    for images, labels in batches:
        undisturbed.step(images, labels)
    assert not train_digits_jax.bits_differ(trainer, undisturbed)
    bias = undisturbed.weights["linear bias"]
    undisturbed.weights["linear bias"] = np.nextafter(np.asarray(bias), np.float32(9))
    assert train_digits_jax.bits_differ(trainer, undisturbed)
