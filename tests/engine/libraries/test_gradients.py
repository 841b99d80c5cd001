"""Gradients against PyTorch's autograd and central differences, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from hypothesis import given
from hypothesis import strategies as st

from pooling_engine import PoolSpec, backward, forward
from tests.support import cases

MAXIMUM, MINIMUM, SUM, AVERAGE = ({"mode": mode} for mode in ("max", "min", "sum", "average"))
EXCLUDE = AVERAGE | {"count_include_pad": False}
NORMS = tuple({"mode": "lp", "norm_p": p} for p in (1, 1.5, 2, 3, math.inf))

# Windows of every rank and kind, each with a shape that it fits.
WINDOWS = (
    ({"kernel": 3, "stride": 2, "padding": 1, "ceil_mode": True}, (8,)),
    ({"kernel": 3, "stride": 1, "dilation": 2, "padding": [(4, 3)]}, (7,)),
    ({"kernel": (3, 2), "stride": (1, 2), "padding": ((1, 0), (0, 1))}, (5, 4)),
    ({"kernel": 2, "stride": 3, "padding": "same_lower"}, (4, 5)),
    ({"kernel": 2, "stride": 1, "dilation": (1, 2, 1), "padding": (0, 1, 1)}, (3, 3, 2)),
    ({"kernel": 2, "stride": 1, "padding": ((0, 1), (0, 0), (1, 0), (0, 0))}, (2, 3, 2, 2)),
    ({"kernel": (1, 2, 1, 2, 2), "stride": 1, "padding": (0, 1, 0, 0, 1)}, (2, 2, 1, 2, 2)),
    ({"kernel": 2, "stride": 1, "dilation": (1, 2, 1, 2, 1, 1), "padding": 1}, (1, 2, 1, 2, 1, 2)),
    ({"adaptive_output": 3}, (7,)),
    ({"adaptive_output": (2, 3)}, (5, 4)),
    ({"adaptive_output": (1, 2, 1, 3, 2, 1)}, (2, 3, 1, 2, 1, 2)),
    ({"global_window": True}, (2, 3, 3)),
    ({"global_window": True}, (1, 2, 2, 1, 2)),
)
STEP = 1e-4


def residual_of(mode, x, result):
    """Return the arguments of `backward` that describe the forward pass."""
    if mode in ("max", "min"):
        return {"input_shape": x.shape, "indices": result.indices}
    return {"input": x} if mode == "lp" else {"input_shape": x.shape}


def gradient(spec, x, dy):
    result = forward(x, spec, return_indices=spec.mode in ("max", "min"))
    return backward(dy, spec, **residual_of(spec.mode, x, result))


def pytorch(options, x):
    """Pool with PyTorch: symmetric padding, windows without overhang."""
    count = x.dim() - 2
    mode, kernel = options["mode"], options["kernel"]
    layer = {"kernel_size": kernel, "stride": options["stride"]}
    if mode == "lp":
        layer = {name: size if count > 1 else size[0] for name, size in layer.items()}
        return getattr(F, f"lp_pool{count}d")(x, options["norm_p"], **layer)
    layer |= {"padding": options["padding"], "ceil_mode": options["ceil_mode"]}
    if mode == "max":
        return getattr(F, f"max_pool{count}d")(x, dilation=options["dilation"], **layer)
    include = options.get("count_include_pad", True)
    return getattr(F, f"avg_pool{count}d")(x, count_include_pad=include, **layer)


@st.composite
def pytorch_layers(draw, modes):
    """Draw a spec that PyTorch supports, a shape that it fits, and a seed."""
    options = dict(draw(st.sampled_from(modes)))
    is_max, has_pads = options["mode"] == "max", options["mode"] != "lp"
    axes = []
    for _ in range(draw(st.integers(1, 3))):
        kernel, stride = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
        dilation = draw(st.integers(1, 3)) if is_max else 1
        padding = draw(st.integers(0, kernel // 2)) if has_pads else 0
        least = (kernel - 1) * dilation + 1
        axes.append((draw(st.integers(least, least + 5)), kernel, stride, dilation, padding))
    sizes, *windows = zip(*axes, strict=True)
    options |= dict(zip(("kernel", "stride", "dilation", "padding"), windows, strict=True))
    options["ceil_mode"] = has_pads and draw(st.booleans())
    planes = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    return options, (*planes, *sizes), draw(st.integers(0, 999))


@pytest.mark.parametrize(
    "modes", [(MAXIMUM,), (AVERAGE, EXCLUDE), NORMS[:-1]], ids=["max", "average", "lp"]
)
@cases.many_examples
@given(data=st.data())
def test_gradients_agree_with_autograd(modes, data):
    options, shape, seed = data.draw(pytorch_layers(modes))
    x = cases.distinct(shape, seed)
    x = np.abs(x) if options["mode"] == "lp" else x  # PyTorch does not take absolute values
    tensor = torch.from_numpy(x).requires_grad_()
    output = pytorch(options, tensor)
    dy = cases.normal(tuple(output.shape), "float64", seed)
    (expected,) = torch.autograd.grad(output, tensor, torch.from_numpy(dy))
    spec = PoolSpec(**options)
    result = forward(x, spec)
    np.testing.assert_allclose(result.output, output.detach().numpy(), rtol=1e-13, atol=1e-14)
    dx = gradient(spec, x, dy)
    np.testing.assert_allclose(dx, expected.numpy(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize(("window", "sizes"), WINDOWS, ids=cases.name_of)
@pytest.mark.parametrize(
    "mode",
    [MAXIMUM, MINIMUM, SUM, AVERAGE, EXCLUDE, AVERAGE | {"divisor_override": -3}, *NORMS],
    ids=cases.name_of,
)
def test_gradients_agree_with_central_differences(mode, window, sizes, layout):
    spec = PoolSpec(**mode, **window, layout=layout)
    x = cases.distinct((1, 2, *sizes) if layout == "channels_first" else (1, *sizes, 2))
    steps = STEP * np.eye(x.size).reshape(x.size, *x.shape[1:])
    above, below = (forward(x + step, spec).output for step in (steps, -steps))
    slopes = (above - below) / (2 * STEP)
    dy = cases.normal(slopes.shape[1:], "float64")[None]
    expected = (slopes * dy).reshape(x.size, -1).sum(axis=1).reshape(x.shape)
    np.testing.assert_allclose(gradient(spec, x, dy), expected, rtol=1e-6, atol=1e-6)
