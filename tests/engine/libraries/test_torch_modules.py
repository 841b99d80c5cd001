"""`PoolSpec.from_torch`: the spec computes what the module computes, or is rejected by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pooling_engine import InvalidSpecError, InvalidTensorError, PoolSpec, UnsupportedError, forward

MODULES = [
    nn.MaxPool1d(3, 2, 1),
    nn.MaxPool2d(3, 2, 1, dilation=1, ceil_mode=True),
    nn.MaxPool2d((2, 3), (1, 2), (1, 0)),
    nn.MaxPool3d((3,), 1, dilation=2),
    nn.AvgPool1d(3, 2, 1),
    nn.AvgPool2d(3, 2, 1, count_include_pad=False, ceil_mode=True),
    nn.AvgPool3d(2, divisor_override=3),
    nn.AdaptiveMaxPool2d((3, 4)),
    nn.AdaptiveAvgPool1d(5),
    nn.AdaptiveAvgPool3d(2),
]
SHAPES = {1: (2, 3, 17), 2: (2, 3, 9, 10), 3: (2, 2, 7, 6, 8)}


def rank_of(module: nn.Module) -> int:
    return int(type(module).__name__[-2])


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_spec_computes_what_the_module_computes(module: nn.Module) -> None:
    x = torch.randn(SHAPES[rank_of(module)], dtype=torch.float64)
    actual = forward(x.numpy(), PoolSpec.from_torch(module)).output
    np.testing.assert_allclose(actual, module(x).numpy(), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_spec_knows_its_rank(module: nn.Module) -> None:
    """A spec with one number for all axes would pool an image without a batch axis as sequences."""
    x = np.zeros(SHAPES[rank_of(module)][1:])
    with pytest.raises((InvalidSpecError, InvalidTensorError), match="spatial axes"):
        forward(x, PoolSpec.from_torch(module))


def test_a_subclass_is_translated() -> None:
    class Pool(nn.MaxPool2d):
        pass

    assert PoolSpec.from_torch(Pool(2)) == PoolSpec.from_torch(nn.MaxPool2d(2))


REJECTED: list[tuple[Any, type[Exception], str]] = [
    (nn.LPPool2d(2, 2), UnsupportedError, "LPPool2d of PyTorch has no spec: it sums signed powers"),
    (nn.FractionalMaxPool2d(2, output_size=3), UnsupportedError, "its windows are random"),
    (nn.MaxUnpool1d(2), UnsupportedError, "the backward call of the max pooling layer"),
    (nn.AdaptiveAvgPool2d((None, 2)), UnsupportedError, "output_size has None"),
    (nn.MaxPool2d((3, 2, 1)), InvalidSpecError, "kernel_size has 3 sizes; it must have 2"),
    (nn.MaxPool2d(0), InvalidSpecError, r"kernel\[0\] is 0"),
    (nn.Linear(2, 2), InvalidSpecError, "module is of type Linear"),
    ("MaxPool2d", InvalidSpecError, "module is of type str"),
]


@pytest.mark.parametrize(("module", "error", "text"), REJECTED, ids=str)
def test_other_modules_are_rejected_by_name(module: Any, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        PoolSpec.from_torch(module)
