"""Every mode over windows of every kind and rank, against PyTorch's autograd in float64.

PyTorch has no layers for most of these windows. It differentiates an expression that gathers the
taps of each window by their positions and reduces them.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pooling_engine import PoolSpec, backward, forward
from tests.support import cases, oracle

MODES = (
    {"mode": "max"},
    {"mode": "min"},
    {"mode": "sum"},
    {"mode": "average"},
    {"mode": "average", "count_include_pad": False},
    {"mode": "average", "divisor_override": -3},
    *({"mode": "lp", "norm_p": p} for p in (1, 1.5, 2, 3, math.inf)),
)
EMPTY = {"max": -math.inf, "min": math.inf}

some_examples = settings(cases.many_examples, max_examples=cases.many_examples.max_examples // 10)


def taps_along(axis, x, window, outputs, empty):
    """Return `x` with an axis of outputs, and a last axis of taps; `empty` beyond the end."""
    size = x.shape[axis]
    taps = [oracle.taps_along(output, window) for output in range(outputs)]
    most = max(map(len, taps))
    inside = [[at if 0 <= at < size else size for at in row] for row in taps]
    positions = torch.tensor([row + [size] * (most - len(row)) for row in inside])
    beyond = torch.full_like(x.narrow(axis, 0, 1), empty)
    taken = torch.cat([x, beyond], axis).index_select(axis, positions.ravel())
    return taken.unflatten(axis, positions.shape).movedim(axis + 1, -1)


def pooled(options, x):
    """Pool a channels-first tensor with operations that autograd differentiates."""
    sizes, mode = tuple(x.shape[2:]), options["mode"]
    windows = cases.windows_of(options, sizes)
    outputs = oracle.output_shape(x.shape, windows, options.get("ceil_mode", False))
    for axis, window in enumerate(windows, 2):
        x = taps_along(axis, x, window, outputs[axis], EMPTY.get(mode, 0.0))
    taps = x.flatten(len(outputs))
    if mode == "lp":
        return torch.linalg.vector_norm(taps, options["norm_p"], dim=-1)
    if mode in EMPTY:
        return taps.amax(-1) if mode == "max" else taps.amin(-1)
    return taps.sum(-1) / torch.from_numpy(divisors(options, outputs, sizes, windows))


def divisors(options, outputs, sizes, windows):
    """Return the divisor of each sum."""
    if options["mode"] == "sum":
        return np.ones(outputs)
    how = {key: options[key] for key in ("count_include_pad", "divisor_override") if key in options}
    found = [
        max(1, count) if (count := oracle.divisor(at, sizes, windows, **how)) >= 0 else count
        for at in np.ndindex(outputs[2:])
    ]
    return np.broadcast_to(np.reshape(found, outputs[2:]), outputs).astype(np.float64)


@pytest.mark.parametrize("axes", range(1, 7))
@pytest.mark.parametrize("mode", MODES, ids=cases.name_of)
@some_examples
@given(data=st.data())
def test_outputs_and_gradients_agree_with_autograd(data, mode, axes):
    options, sizes, seed = data.draw(cases.ranked_windows(axes))
    options = mode | options
    x = torch.from_numpy(cases.distinct((2, 2, *sizes), seed)).requires_grad_()
    output = pooled(options, x)
    dy = cases.normal(tuple(output.shape), "float64", seed)
    (expected,) = torch.autograd.grad(output, x, torch.from_numpy(dy))
    spec, given_x = PoolSpec(**options), cases.to_layout(options, x.detach().numpy())
    ours = cases.from_layout(options, forward(given_x, spec).output)
    np.testing.assert_allclose(ours, output.detach().numpy(), rtol=1e-13, atol=1e-13)
    is_linear = mode["mode"] in ("sum", "average")
    residual = {"input_shape": given_x.shape} if is_linear else {"input": given_x}
    dx = backward(cases.to_layout(options, dy), spec, **residual)
    np.testing.assert_allclose(
        cases.from_layout(options, dx), expected.numpy(), rtol=1e-12, atol=1e-12
    )
