"""Gradients of windows that overlap, of every form that has a loop for itself, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooling_engine import PoolSpec, backward, forward
from tests.engine.numba.support import TILE_BYTES, tiles_of
from tests.support import cases, oracle, pairs, palettes

pytestmark = pytest.mark.once  # every test names its backend

MODES = (
    {"mode": "max"},
    {"mode": "average"},
    {"mode": "average", "count_include_pad": False},
    {"mode": "sum"},
)


@st.composite
def overlapping_windows(draw):
    """Draw windows, sliding or adaptive, along one to three axes, and sizes for them."""
    axes = draw(st.integers(1, 3))
    longest = (60, 16, 7)[axes - 1]
    sizes = tuple(draw(st.integers(2, longest)) for _ in range(axes))
    options = {"layout": draw(st.sampled_from(("channels_first", "channels_last")))}
    if draw(st.booleans()):
        outputs = tuple(draw(st.integers(1, size)) for size in sizes)
        return options | {"adaptive_output": outputs}, sizes
    kernels = tuple(draw(st.integers(1, size)) for size in sizes)
    dilations = tuple(
        draw(st.integers(1, 2 if k * 2 <= s else 1)) for k, s in zip(kernels, sizes, strict=True)
    )
    return options | {
        "kernel": kernels,
        "stride": tuple(draw(st.integers(1, 3)) for _ in sizes),
        "dilation": dilations,
        "padding": tuple(
            (draw(st.integers(0, k - 1)), draw(st.integers(0, k - 1))) for k in kernels
        ),
    }, sizes


@pytest.mark.parametrize("dtype", palettes.DTYPES, ids=lambda dtype: dtype.name)
@given(
    overlapping_windows(),
    st.sampled_from(MODES),
    st.sampled_from(((1, 1), (2, 1), (2, 2), (4, 3))),
    st.sampled_from(((TILE_BYTES, 1), (256, 2))),
    st.integers(0, 99),
)
@cases.many_examples
def test_overlapping_windows(dtype, window, mode, planes, tiling, seed):
    options, sizes = window
    value = palettes.VALUES["ties"]
    x = value((*planes, *sizes), dtype, seed)
    with tiles_of(*tiling):
        pairs.assert_same_calls("numba", mode | options, x, value, seed)


# Windows of more taps than 8 and 16 bits count, and of more than float32 divides exactly.
WIDE = (
    ({"kernel": 31, "stride": 1, "padding": 15}, (2, 2, 40, 37)),
    ({"kernel": (300, 5), "stride": (40, 3), "padding": (0, 2)}, (1, 2, 900, 50)),
    ({"kernel": (260, 260), "stride": 20}, (1, 1, 300, 281)),
    ({"kernel": (2049, 2049), "stride": 1}, (1, 1, 2050, 2049)),
    ({"adaptive_output": (7, 1000)}, (1, 1, 9, 2300)),
)


@pytest.mark.parametrize(("options", "shape"), WIDE, ids=cases.name_of)
def test_wide_windows(options, shape):
    spec = PoolSpec("max", **options)
    x = palettes.VALUES["normal"](shape, np.dtype(np.float32), 3)
    y, indices = forward(x, spec, return_indices=True)
    sent = {"indices": indices, "input_shape": shape}
    pairs.assert_same("numba", backward, y, spec, **sent)
    for value in (0, 1, np.iinfo(indices.dtype).max - 1, np.iinfo(indices.dtype).max):
        changed = indices.copy()
        changed.reshape(-1)[-1] = value
        pairs.assert_same("numba", backward, y, spec, **sent | {"indices": changed})


@pytest.mark.parametrize("planes", [1, 2, 4, 6])
def test_neighbours_that_select_one_element(planes):
    """Planes are added side by side; within each, the order is that of the windows."""
    spec, shape = PoolSpec("max", 5, 1, padding=2), (planes, 1, 8, 8)
    x = np.zeros(shape, np.float32)
    x[:, :, 4, 4] = 1
    _, indices = forward(x, spec, return_indices=True)
    dy = (10.0 ** np.arange(-30, 34)).astype(np.float32).reshape(1, 1, 8, 8) * np.ones(shape)
    dy = dy.astype(np.float32)
    given = {"indices": indices, "input_shape": shape}
    expected = backward(dy, spec, backend="numpy", **given)
    oracle.assert_same_bits(backward(dy, spec, backend="numba", **given), expected)
