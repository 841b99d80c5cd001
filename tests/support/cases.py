"""Test cases: tables of specs, shapes and types, legal and illegal, and random strategies.

A case is the keyword arguments of a `PoolSpec` and a shape, as plain Python values; `windows_of`
turns them into what the oracle takes.
"""

from __future__ import annotations

import itertools
import math
import os
from typing import NamedTuple

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from tests.support import oracle

FLOATS = ("float16", "float32", "float64")
INTEGERS = ("int8", "uint8", "int16", "int32", "int64")

# `make test-deep` asks for more.
many_examples = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=int(os.environ.get("POOLING_TEST_EXAMPLES", "100")),
)

# Every mode with the options that change its arithmetic.
MODES = (
    {"mode": "max"},
    {"mode": "min"},
    {"mode": "sum"},
    {"mode": "average"},
    {"mode": "average", "count_include_pad": False},
    {"mode": "average", "divisor_override": -3},
    {"mode": "average", "divisor_override": 0.37},
    {"mode": "lp"},
    {"mode": "lp", "norm_p": 1},
    {"mode": "lp", "norm_p": 1.5},
    {"mode": "lp", "norm_p": 3.0},
    {"mode": "lp", "norm_p": math.inf},
)

# Windows, and the spatial sizes they are applied to.
WINDOWS = (
    ({"kernel": 3, "stride": 2}, (14,)),
    ({"kernel": 2}, (5,)),
    ({"kernel": 1, "stride": 3}, (7,)),
    ({"kernel": 4, "stride": 3, "padding": 2, "ceil_mode": True}, (5,)),
    ({"kernel": 3, "stride": 2, "dilation": 3, "padding": [(5, 6)], "ceil_mode": True}, (6,)),
    ({"kernel": 2, "stride": 2, "dilation": 2, "padding": 1}, (1,)),
    ({"kernel": 2, "stride": 2, "dilation": 2, "padding": [(1, 0)]}, (3,)),
    ({"kernel": 3, "stride": 2, "dilation": 2, "padding": [(1, 0)]}, (5,)),
    ({"kernel": 5, "padding": "same_upper", "stride": 2, "dilation": 2}, (6,)),
    ({"kernel": 3, "stride": 2, "padding": 1}, (7, 5)),
    ({"kernel": (3, 4), "stride": (2, 1)}, (3, 4)),
    ({"kernel": (2, 3), "stride": (1, 2), "padding": ((1, 0), (0, 2))}, (5, 6)),
    ({"kernel": (3, 2), "stride": (3, 4), "dilation": (1, 3), "ceil_mode": True}, (8, 9)),
    ({"kernel": 4, "stride": 3, "padding": "same_lower"}, (5, 7)),
    ({"kernel": 2, "stride": 1, "dilation": 3, "padding": 2}, (2, 3)),
    ({"kernel": 2, "stride": (2, 1, 1), "padding": ((1, 1), (0, 1), (0, 0))}, (3, 4, 3)),
    ({"kernel": 2, "padding": 1, "dilation": (1, 2, 2), "ceil_mode": True}, (3, 2, 3)),
    ({"kernel": 2, "stride": 1}, (2, 3, 2, 2)),
    ({"kernel": (1, 2, 1, 2, 1), "stride": 1}, (2, 2, 1, 3, 2)),
    ({"kernel": 2, "stride": 1, "padding": (1, 0, 0, 0, 0, 0)}, (1, 2, 2, 2, 2, 2)),
)

# Windows that follow from the sizes: adaptive and global.
SIZED_WINDOWS = (
    ({"adaptive_output": 3}, (5,)),
    ({"adaptive_output": 7}, (3,)),
    ({"adaptive_output": 4}, (4,)),
    ({"adaptive_output": 5}, (1,)),
    ({"global_window": True}, (7,)),
    ({"adaptive_output": 3}, (7, 4)),
    ({"adaptive_output": (1, 4)}, (3, 7)),
    ({"adaptive_output": (5, 2)}, (3, 9)),
    ({"global_window": True}, (4, 5)),
    ({"adaptive_output": (2, 3, 2)}, (5, 4, 3)),
    ({"global_window": True}, (2, 3, 4)),
    ({"adaptive_output": (2, 1, 3, 2)}, (3, 2, 2, 3)),
    ({"adaptive_output": 2}, (1, 2, 3, 1, 2, 1)),
    ({"global_window": True}, (2, 1, 2, 3, 1, 2)),
)

NO_ELEMENT_TYPES = ("bool", "uint16", "uint32", "uint64", "complex64", "longdouble", "U3", "M8[s]")

# Shapes that no tensor may have; N = 0 is legal and not here.
INVALID_SHAPES = ((), (4,), (2, 4), (1, 0, 4), (1, 1, 0), (1, 1, 4, 0), (0, 0, 4), (1,) * 9)


def windows_of(options, sizes):
    """Return the oracle's windows: five integers, or all positions, per spatial axis."""
    count = len(sizes)
    if options.get("global_window"):
        return tuple((size, size, 1, 0, 0) for size in sizes)
    if "adaptive_output" in options:
        outputs = per_axis(options["adaptive_output"], count)
        return tuple(map(oracle.adaptive_windows, sizes, outputs))
    kernels = per_axis(options["kernel"], count)
    strides = per_axis(options.get("stride") or kernels, count)
    dilations = per_axis(options.get("dilation", 1), count)
    padding = options.get("padding", 0)
    if isinstance(padding, str):
        pads = [
            oracle.named_padding(padding, *sizes_of_axis)
            for sizes_of_axis in zip(sizes, kernels, strides, dilations, strict=True)
        ]
    else:
        pads = [p if isinstance(p, tuple) else (p, p) for p in per_axis(padding, count)]
    return tuple(
        (k, s, d, *pad) for k, s, d, pad in zip(kernels, strides, dilations, pads, strict=True)
    )


def per_axis(value, count):
    return tuple(value) if isinstance(value, tuple | list) else (value,) * count


def arithmetic_of(options):
    """Return the options that the oracle takes by the same names."""
    names = ("count_include_pad", "divisor_override", "norm_p", "nan_policy")
    return {name: options[name] for name in names if name in options}


def expected_forward(options, x):
    """Return the oracle's output for a channels-first tensor."""
    return oracle.forward(
        x,
        options["mode"],
        windows_of(options, x.shape[2:]),
        ceil_mode=options.get("ceil_mode", False),
        **arithmetic_of(options),
    )


def expected_backward(options, dy, shape, **residual):
    """Return the gradient of the oracle, channels first; `residual` is ``x=`` or ``taps=``."""
    windows = windows_of(options, shape[2:])
    how = arithmetic_of(options) | {"tie_policy": options.get("tie_policy", "first")}
    return oracle.backward(dy, options["mode"], shape, windows, **residual, **how)


def window_indices(taps, windows):
    """Convert the oracle's tap numbers to the contract's index type and its "none"."""
    count = math.prod(map(oracle.kernel_of, windows))
    dtype = np.dtype("uint8" if count <= 255 else "uint16" if count <= 65535 else "uint32")
    return np.where(taps == oracle.NONE, np.iinfo(dtype).max, taps).astype(dtype)


def normal(shape, dtype="float32", seed=0):
    """Return well-scaled values of both signs."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def distinct(shape, seed=0):
    """Return values of both signs with well-separated magnitudes."""
    rng = np.random.default_rng(seed)
    magnitudes = rng.permutation(np.linspace(0.5, 2.5, math.prod(shape)))
    return (magnitudes * rng.choice([-1, 1], magnitudes.size)).reshape(shape)


def hard(shape, dtype="float32", seed=0, has_nan=True):
    """Return ties, zeros of both signs, infinities and NaNs of several signs and payloads."""
    palette = np.array([0.0, -0.0, 0.0, -0.0, 1, 1, -1, -1, 2, np.inf, -np.inf, 5e-8], dtype)
    if has_nan:
        unsigned = f"u{palette.dtype.itemsize}"
        nans = np.array([np.nan, -np.nan, np.nan], dtype)
        nans[2:].view(unsigned)[:] |= 3
        palette = np.concatenate([palette, nans])
    return np.random.default_rng(seed).choice(palette, shape)


def integers(shape, dtype, seed=0):
    """Return integers of all sizes; int64 values leave room to sum some hundreds."""
    legal = np.iinfo(dtype)
    room = 512 if legal.bits == 64 else 1
    random = np.random.default_rng(seed)
    return random.integers(legal.min // room, legal.max // room, shape, dtype, endpoint=True)


def extremes(shape, dtype, seed=0):
    """Return integers with ties, most of them at the ends of the type."""
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    palette = np.array([low, low, high, high, low + 1, high - 1, 0, 0, 1], dtype)
    return np.random.default_rng(seed).choice(palette, shape)


def read_only(x):
    x.flags.writeable = False
    return x


def unaligned(x):
    copy = np.empty(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


# The same tensor in other memory layouts.
DISGUISES = {
    "plain": lambda x: x,
    "read only": lambda x: read_only(x.copy()),
    "Fortran order": np.asfortranarray,
    "every other": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "backwards": lambda x: x[..., ::-1].copy()[..., ::-1],
    "other bytes": lambda x: x.astype(x.dtype.newbyteorder()),
    "unaligned": unaligned,
}


class Case(NamedTuple):
    """One random case: a tensor in the caller's layout, and the options to compute it."""

    options: dict
    shape: tuple
    dtype: str
    seed: int
    disguise: str
    block_bytes: int
    threads: int


@st.composite
def axis_windows(draw):
    """Draw a legal window along one axis, and a size that it fits."""
    kernel, stride, dilation = draw(st.tuples(*(st.integers(1, most) for most in (4, 4, 3))))
    extent = (kernel - 1) * dilation + 1
    before, after = draw(st.tuples(*[st.integers(0, extent - 1)] * 2))
    size = draw(st.integers(max(1, extent - before - after), max(1, extent - before - after) + 5))
    return size, kernel, stride, dilation, (before, after)


@st.composite
def cases(draw, modes=MODES, dtypes=FLOATS, most_axes=3):
    """Draw a legal case that is small enough for the oracle."""
    axes = draw(st.lists(axis_windows(), min_size=1, max_size=most_axes))
    sizes, kernels, strides, dilations, pads = zip(*axes, strict=True)
    options = dict(draw(st.sampled_from(modes)))
    options |= {"kernel": kernels, "stride": strides, "dilation": dilations, "padding": pads}
    options["ceil_mode"] = draw(st.booleans())
    if draw(st.integers(0, 4)) == 0:
        options |= {
            "padding": draw(st.sampled_from(("same_upper", "same_lower"))),
            "ceil_mode": False,
        }
    planes = draw(st.tuples(st.integers(1, 2), st.integers(1, 3)))
    if draw(st.booleans()):
        options["layout"] = "channels_last"
    return Case(
        options,
        planes + sizes,
        draw(st.sampled_from(dtypes)),
        draw(st.integers(0, 999)),
        draw(st.sampled_from(tuple(DISGUISES))),
        draw(st.sampled_from((8, 64, 1 << 20))),
        draw(st.sampled_from((1, 3))),
    )


@st.composite
def ranked_windows(draw, axes, most_cells=500):
    """Draw windows of any kind over `axes` axes, sizes that they fit, and a seed."""
    rows, cells = [], 1
    for _ in range(axes):
        row = draw(axis_windows())
        if cells * row[0] * row[1] > most_cells:
            row = (1, 1, 1, 1, (0, 0))
        rows.append(row)
        cells *= row[0] * row[1]
    sizes, kernels, strides, dilations, pads = zip(*rows, strict=True)
    options = {"kernel": kernels, "stride": strides, "dilation": dilations}
    options |= draw(st.sampled_from(({"padding": pads, "ceil_mode": True}, {"padding": pads})))
    options |= draw(st.sampled_from(({}, {"layout": "channels_last"})))
    kind = draw(st.integers(0, 5))
    if kind < 2:
        outputs = tuple(draw(st.integers(1, size + 1)) for size in sizes)
        sized = {"adaptive_output": outputs} if kind else {"global_window": True}
        options = sized | {"layout": options.get("layout", "channels_first")}
    return options, sizes, draw(st.integers(0, 999))


def to_layout(options, x):
    """Move a channels-first tensor to the layout of the options."""
    return np.moveaxis(x, 1, -1) if options.get("layout") == "channels_last" else x


def from_layout(options, x):
    """Move a tensor in the layout of the options to channels first."""
    return np.moveaxis(x, -1, 1) if options.get("layout") == "channels_last" else x


def all_cases(modes=MODES, windows=WINDOWS):
    """Return every mode with every window: (options, sizes)."""
    return tuple(
        (mode | window, sizes) for mode, (window, sizes) in itertools.product(modes, windows)
    )


def name_of(value):
    """Return a readable pytest id for a row of a table."""
    if isinstance(value, dict):
        return " ".join(f"{key}={str(item)[:40]}" for key, item in value.items())
    return str(value)
