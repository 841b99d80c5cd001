"""Results of the Numba backend are bit-identical to those of the NumPy backend."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooling_engine import PoolSpec, backward, forward
from tests.engine.numba.support import TILE_BYTES, tiles_of
from tests.support import cases, oracle, pairs, palettes

pytestmark = pytest.mark.once  # every test names its backend

MODES = tuple(mode for mode in cases.MODES if mode["mode"] != "lp")
POLICIES = tuple(
    {"mode": mode} | policy
    for mode in ("max", "min")
    for policy in (
        {"nan_policy": "ignore"},
        {"nan_policy": "error"},
        {"tie_policy": "all"},
        {"tie_policy": "split", "nan_policy": "ignore"},
    )
)
every_type = pytest.mark.parametrize("dtype", palettes.DTYPES, ids=lambda dtype: dtype.name)
many = cases.many_examples

# Numbers of taps and strides: some have a loop for themselves, others share the general one.
LOOPS = (
    (1, 1),
    (2, 2),
    (3, 2),
    (3, 1),
    (5, 1),
    (4, 4),
    (2, 1),
    (7, 2),
    (16, 2),
    (17, 2),
    (9, 3),
    (19, 1),
)


@st.composite
def long_axes(draw):
    """Draw windows from LOOPS, over rows of many elements."""
    axes = draw(st.integers(1, 2))
    kernels, strides = zip(*(draw(st.sampled_from(LOOPS)) for _ in range(axes)), strict=True)
    pads = tuple((draw(st.integers(0, k - 1)), draw(st.integers(0, k - 1))) for k in kernels)
    sizes = tuple(k + draw(st.integers(0, 40)) for k in kernels)
    options = {"kernel": kernels, "stride": strides, "padding": pads}
    options["ceil_mode"] = draw(st.booleans())
    if draw(st.booleans()):
        options["layout"] = "channels_last"
    return options, sizes, draw(st.integers(0, 999))


@st.composite
def adjacent_windows(draw):
    """Draw adjacent windows in rows long and short, with and without elements left over."""
    axes = draw(st.integers(1, 3))
    kernels = tuple(draw(st.integers(1, 6)) for _ in range(axes))
    sizes = tuple(
        k * draw(st.sampled_from((1, 2, 3, 5, 9, 40)) if axis == axes - 1 else st.integers(1, 4))
        + draw(st.sampled_from((0, 0, 0, k - 1)))
        for axis, k in enumerate(kernels)
    )
    options = {"kernel": kernels}
    if draw(st.booleans()):
        options["layout"] = "channels_last"
    return options, sizes, draw(st.integers(0, 999))


windows = st.one_of(
    long_axes(), adjacent_windows(), st.integers(1, 6).flatmap(cases.ranked_windows)
)
drawn = (
    windows,
    st.sampled_from(MODES + MODES + POLICIES + ({"mode": "lp"},)),
    st.tuples(st.sampled_from((1, 1, 2, 3, 0)), st.integers(1, 3)),
    st.sampled_from(tuple(palettes.VALUES)),
    st.sampled_from(tuple(cases.DISGUISES)),
    st.sampled_from(
        (
            (TILE_BYTES, 1),
            (TILE_BYTES, 2),
            (64, 1),
            (64, 3),
            (500, 5),
            (TILE_BYTES, 1, True),
            (64, 2, True),
        )
    ),
)


@every_type
@given(*drawn)
@many
def test_any_case(dtype, window, mode, planes, values, disguise, tiling):
    options, sizes, seed = window
    value = palettes.VALUES[values]
    x = value((*planes, *sizes), dtype, seed)
    with tiles_of(*tiling):
        pairs.assert_same_calls("numba", mode | options, x, value, seed, cases.DISGUISES[disguise])


# Several tiles for each plane and several runs of tiles, in their default sizes.
LARGE = (
    ({"kernel": 3, "stride": 2, "padding": 1}, (1, 2, 300, 70)),
    ({"kernel": (5, 3), "stride": (1, 2), "padding": (2, 0)}, (1, 2, 300, 70)),
    ({"kernel": 2}, (2, 3, 130, 130)),
    ({"kernel": 4}, (3, 5, 12_000)),
    ({"kernel": (2, 3)}, (12, 9, 30, 29)),
    ({"kernel": 2, "layout": "channels_last"}, (3, 33, 60, 61)),
    ({"kernel": 3, "stride": 1, "dilation": 2, "padding": 2}, (1, 3, 90, 111)),
    ({"kernel": 31, "stride": 7, "padding": 15}, (1, 1, 20_000)),
    ({"kernel": 3, "stride": 2, "ceil_mode": True}, (1, 2, 20_000)),
    ({"global_window": True}, (2, 1, 4096)),
    ({"global_window": True}, (3, 2, 5000)),
    ({"global_window": True}, (2, 2, 73, 71)),
    ({"adaptive_output": (7, 9)}, (1, 2, 150, 170)),
    ({"kernel": 3, "stride": 2, "padding": 1, "layout": "channels_last"}, (1, 33, 40, 40)),
    ({"kernel": 3, "stride": 2, "padding": 1, "layout": "channels_last"}, (2, 65, 40, 40)),
    ({"adaptive_output": (7, 5), "layout": "channels_last"}, (2, 48, 13, 12)),
    ({"kernel": 2, "stride": 2, "layout": "channels_last"}, (2, 70, 300)),
    ({"kernel": 3, "padding": 1, "stride": 1, "layout": "channels_last"}, (2, 150, 21, 20)),
    ({"kernel": 5, "padding": 2, "stride": 1, "layout": "channels_last"}, (2, 70, 35, 40)),
    ({"kernel": (7, 5), "padding": 2, "stride": 2, "layout": "channels_last"}, (2, 13, 35, 40)),
    ({"kernel": 2, "layout": "channels_last"}, (2, 6, 30, 31)),
    ({"kernel": 3, "stride": 1, "layout": "channels_last"}, (2, 9, 9, 10)),
    ({"global_window": True, "layout": "channels_last"}, (2, 33, 40, 40)),
    ({"kernel": (3, 2, 3), "stride": (1, 2, 2), "padding": 1}, (1, 2, 20, 33, 31)),
    ({"kernel": (300, 5), "stride": (40, 3)}, (1, 1, 900, 50)),
)


@every_type
@pytest.mark.parametrize(("options", "shape"), LARGE, ids=cases.name_of)
def test_large(dtype, options, shape):
    for number, mode in enumerate(MODES):
        for values, count in (("normal", 1), ("ties", 2), ("normal", 5)):
            value = palettes.VALUES[values]
            x = value(shape, dtype, number)
            with tiles_of(TILE_BYTES, count):
                pairs.assert_same_calls("numba", mode | options, x, value, number)


INVALID = (
    ({"kernel": 3, "stride": 2, "padding": 1}, (5, 4)),
    ({"kernel": 2, "stride": 1, "dilation": 2, "padding": 1}, (3,)),
    ({"adaptive_output": (3, 2)}, (5, 3)),
)


@pytest.mark.parametrize("is_gathered", [True, False], ids=["gather", "scatter"])
@pytest.mark.parametrize(("options", "sizes"), INVALID, ids=cases.name_of)
def test_every_value_of_every_index(options, sizes, is_gathered):
    spec = PoolSpec("max", layout="channels_last", **options)
    x = np.arange(2.0 * np.prod(sizes), dtype=np.float32).reshape(1, *sizes, 2)
    output, indices = forward(x, spec, return_indices=True)
    with tiles_of(TILE_BYTES, 1, is_gathered):
        for place in np.ndindex(indices.shape):
            for value in range(256):
                changed = indices.copy()
                changed[place] = value
                sent = {"indices": changed, "input_shape": x.shape}
                pairs.assert_same("numba", backward, output, spec, **sent)


@every_type
@pytest.mark.parametrize("mode", ["max", "average"])
def test_gradients_past_the_cache_may_be_unaligned(dtype, mode):
    """No cache line of such a gradient begins with an element."""
    spec, shape = PoolSpec(mode, 2), (2, 3, 16, 32)
    x = cases.normal(shape).astype(dtype)
    y, indices = forward(x, spec, return_indices=mode == "max")
    expected = backward(y, spec, input_shape=shape, indices=indices, backend="numpy")
    dx = cases.unaligned(np.zeros(shape, dtype))
    with tiles_of(2048, 1):
        backward(y, spec, input_shape=shape, indices=indices, backend="numba", out=dx)
    oracle.assert_same_bits(dx, expected)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64"])
@pytest.mark.parametrize("mode", ["average", "sum"])
@pytest.mark.parametrize("size", [1, 15, 16, 17, 1023, 1025, 3001])
def test_integer_planes(mode, dtype, size):
    limits = np.iinfo(dtype)
    draw = np.random.default_rng(size)
    x = draw.integers(limits.min, limits.max, (3, 100, size), dtype, endpoint=True)
    x[0] = limits.max
    x = x >> 12 if dtype == "int64" else x  # else the sums overflow
    specs = [PoolSpec(mode, global_window=True), PoolSpec(mode, size)]
    if mode == "average":
        specs.append(PoolSpec(mode, size, divisor_override=-7))
    for spec in specs:
        oracle.assert_same_bits(
            forward(x, spec, backend="numba").output, forward(x, spec, backend="numpy").output
        )


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@many
@given(case=long_axes(), counts_padding=st.booleans())
def test_averages_of_bytes(dtype, case, counts_padding):
    options, sizes, seed = case
    x = cases.to_layout(options, cases.integers((2, 3, *sizes), dtype, seed))
    spec = PoolSpec("average", **options, count_include_pad=counts_padding)
    results = [forward(x, spec, backend=name).output for name in ("numpy", "numba")]
    oracle.assert_same_bits(*results)


ALIKE = {  # bits of quiet and of signalling NaNs
    "float16": (0x7E00, 0xFE00, 0x7C01, 0xFD23, 0x7FFF, 0xFFFF),
    "bfloat16": (0x7FC0, 0xFFC0, 0x7F81, 0xFFA3, 0x7FFF, 0xFFFF),
}


@pytest.mark.parametrize("policy", ["propagate", "ignore"])
@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("dtype", [d for d in palettes.DTYPES if d.name in ALIKE], ids=str)
def test_nans_that_are_alike(dtype, mode, policy):
    """They are compared as one integer beyond the infinities."""
    random = np.random.default_rng(7)
    x = palettes.VALUES["normal"]((4, 3, 20, 17), dtype, 1)
    x.reshape(-1)[::31], x.reshape(-1)[5::37] = np.inf, -np.inf
    for bits in ALIKE[dtype.name]:
        for share in (0.01, 0.6):
            x.view(np.uint16)[random.random(x.shape) < share] = bits
            for options in ({"kernel": 2}, {"kernel": 3, "stride": 2, "padding": 1}):
                spec = PoolSpec(mode, **options, nan_policy=policy)
                result = forward(x, spec, backend="numba").output
                oracle.assert_same_bits(result, forward(x, spec, backend="numpy").output)
