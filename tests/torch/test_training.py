"""Training: the example, and a server that is killed while a network trains."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

import pooling_client.torch
from examples import train_digits
from pooling_client import UnavailableError
from pooling_server import PoolingServer
from tests.support.processes import process
from tests.support.waiting import quiet_port

STEPS = 6


def test_the_example_compares_three_trainings(
    server: PoolingServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    picture = tmp_path / "figure.png"
    arguments = ["--server", server.address, "--epochs", "1", "--figure", str(picture)]
    monkeypatch.setattr("sys.argv", ["train_digits", *arguments])
    monkeypatch.setenv("POOLING_TARGET", "set by the example")
    train_digits.main()
    assert "remote and engine: bit-identical; torch.nn: at most" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_wrong_bit_is_noticed(address: str) -> None:
    runs = train_digits.train(train_digits.KINDS, epochs=0)
    assert not train_digits.bits_differ(*list(runs.values())[:2])
    weight = runs["remote"].weights[0].view(torch.int32)
    weight[0, 0, 0, 0] += 1
    assert train_digits.bits_differ(*list(runs.values())[:2])


def test_training_continues_after_the_server_was_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{quiet_port()}"
    flags = ("--listen", address, "--backend", "numpy")
    monkeypatch.setenv("POOLING_TARGET", address)
    pooling_client.torch.connect(address, timeout=2)
    batches = list(itertools.islice(train_digits.batches(1), STEPS))
    trainer = train_digits.Trainer(pooling_client.torch)
    with process(*flags):
        for images, labels in batches[: STEPS // 2]:
            trainer.step(images, labels)
    before = [each.detach().clone() for each in trainer.model.parameters()]
    images, labels = batches[STEPS // 2]
    with pytest.raises(UnavailableError, match=address):
        trainer.step(images, labels)
    after = list(trainer.model.parameters())
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    pooling_client.torch.connect(address, timeout=30)  # a new server needs seconds to start
    with process(*flags):
        for images, labels in batches[STEPS // 2 :]:
            trainer.step(images, labels)
    undisturbed = train_digits.Trainer(train_digits.ENGINE)
    for images, labels in batches:
        undisturbed.step(images, labels)
    assert not train_digits.bits_differ(trainer.finish(), undisturbed.finish())
