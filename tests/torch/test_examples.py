"""The examples of whole models run, and notice a wrong gradient."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
import torch
from torch import nn

from examples import comparing, inception_v3, resnet18
from examples.running import above_zero, errors_in_one_line
from pooling_client import PoolingClient


@pytest.mark.parametrize(
    ("example", "size", "expected"),
    [
        (resnet18, 32, ["2 pooling modules swapped, 0 left alone", "62 gradients differ"]),
        (inception_v3, 75, ["284 gradients differ", "pooling::forward: 10 calls"]),
    ],
)
def test_examples_of_whole_models(
    example: Any,
    size: int,
    expected: list[str],
    address: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["example", "--server", address])
    monkeypatch.setattr(example, "SIZE", size)
    example.main()
    printed = capsys.readouterr().out
    for text in expected:
        assert text in printed, printed


def test_the_networks_have_their_published_sizes() -> None:
    with torch.device("meta"):
        networks = resnet18.resnet18(), inception_v3.InceptionV3()
    counts = [sum(p.numel() for p in network.parameters()) for network in networks]
    assert counts == [11_689_512, 23_834_568]


def test_a_wrong_gradient_is_noticed() -> None:
    local, other = nn.Linear(2, 2), nn.Linear(2, 2)
    with pytest.raises(SystemExit, match="a gradient differs by more than"):
        comparing.compare(local, other, torch.randn(2, 2))


def test_errors_are_one_line() -> None:
    with pytest.raises(SystemExit, match=r"^error: target is 'nope'"), errors_in_one_line():
        PoolingClient("nope")
    expected = pytest.raises(SystemExit, match=r"^error: the last line$")
    with expected, errors_in_one_line(RuntimeError):
        raise RuntimeError("a traceback\nthe last line")
    with pytest.raises(LookupError), errors_in_one_line():
        raise LookupError("a bug of the example")


def test_numbers_of_epochs() -> None:
    assert above_zero("3") == 3
    for wrong in ("0", "-1", "1.5", "x", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="is not an integer above 0"):
            above_zero(wrong)
