"""Reference implementation of the rules in pooling.proto: loops over outputs, with exact sums.

Slow and obvious; it imports no code of this project. Tensors are channels first. Windows are given
for each spatial axis: as one tuple ``(kernel, stride, dilation, before, after)``, or as a list
with the positions of every window's taps. An index of -1 means "none". Sums of floats come back
as float64, sums of integers as int64, selected elements bit for bit.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from fractions import Fraction
from typing import NamedTuple

import numpy as np

NONE = -1
# The bits of a number's significand, and the exponent (that of `math.frexp`) of the least normal.
FORMATS = {
    "bfloat16": (8, -125),
    "float16": (11, -13),
    "float32": (24, -125),
    "float64": (53, -1021),
}


class Pooled(NamedTuple):
    """Outputs, and the selected tap of each, by its number in the window and in the plane."""

    output: np.ndarray
    taps: np.ndarray
    cells: np.ndarray


def named_padding(name, size, kernel, stride, dilation):
    """Return the padding before and after of a named padding."""
    if name == "valid":
        return 0, 0
    outputs = math.ceil(size / stride)
    total = max(0, (outputs - 1) * stride + (kernel - 1) * dilation + 1 - size)
    smaller, larger = total // 2, total - total // 2
    return (smaller, larger) if name == "same_upper" else (larger, smaller)


def adaptive_windows(size, outputs):
    """Return the adaptive windows along one axis."""
    return [
        range(math.floor(Fraction(i * size, outputs)), math.ceil(Fraction((i + 1) * size, outputs)))
        for i in range(outputs)
    ]


def kernel_of(window):
    """Return the number of taps of the largest window along one axis."""
    return max(map(len, window)) if isinstance(window, list) else window[0]


def output_size(size, window, ceil_mode=False):
    """Return the output size along one axis; below 1 if no window fits."""
    if isinstance(window, list):
        return len(window)
    kernel, stride, dilation, before, after = window
    room = size + before + after - ((kernel - 1) * dilation + 1)
    if not ceil_mode:
        return room // stride + 1
    outputs = (room + stride - 1) // stride + 1
    return outputs - 1 if (outputs - 1) * stride >= size + before else outputs


def output_shape(shape, windows, ceil_mode=False):
    """Return the output shape of an input of `shape`."""
    sizes = (
        output_size(size, window, ceil_mode)
        for size, window in zip(shape[2:], windows, strict=True)
    )
    return (*shape[:2], *sizes)


def taps_along(output, window):
    """Return the positions of the taps of one window along one axis."""
    if isinstance(window, list):
        return window[output]
    kernel, stride, dilation, before, _ = window
    return [output * stride - before + tap * dilation for tap in range(kernel)]


def taps_of(place, windows):
    """Return the position of every tap of the window at output `place`, row-major."""
    return list(itertools.product(*map(taps_along, place, windows)))


def numbered_taps(place, windows):
    """Map tap numbers, row-major over the largest window, to positions."""
    kernels = [kernel_of(window) for window in windows]
    lengths = [len(taps_along(*axis)) for axis in zip(place, windows, strict=True)]
    numbers = [flat(offsets, kernels) for offsets in np.ndindex(*lengths)]
    return dict(zip(numbers, taps_of(place, windows), strict=True))


def is_valid(position, sizes):
    """Return True if a tap lies on an element."""
    return all(0 <= at < size for at, size in zip(position, sizes, strict=True))


def divisor(place, sizes, windows, count_include_pad=True, divisor_override=None):
    """Return the divisor of the average at output `place`."""
    if divisor_override is not None:
        return divisor_override
    if not count_include_pad:
        return max(1, sum(is_valid(position, sizes) for position in taps_of(place, windows)))
    pads = [0 if isinstance(window, list) else window[4] for window in windows]
    ends = [size + pad for size, pad in zip(sizes, pads, strict=True)]
    return sum(
        all(at < end for at, end in zip(position, ends, strict=True))
        for position in taps_of(place, windows)
    )


def outranks(mode, challenger, holder):
    """Return True if a later element is selected instead of the held one."""
    if math.isnan(holder):
        return False
    if math.isnan(challenger):
        return True
    return challenger > holder if mode == "max" else challenger < holder


def as_number(element):
    """Return an element as an exact Python number."""
    return int(element) if element.dtype.kind in "iu" else float(element)


def eligible(plane, place, windows, nan_policy="propagate"):
    """Return the selectable taps of a window: (number, position, value)."""
    taps = [
        (number, position, as_number(plane[position]))
        for number, position in numbered_taps(place, windows).items()
        if is_valid(position, plane.shape)
    ]
    if nan_policy == "error" and any(math.isnan(value) for _, _, value in taps):
        raise ValueError(f"there is a NaN in the window at {place}")
    return [tap for tap in taps if nan_policy != "ignore" or not math.isnan(tap[2])]


def select(mode, taps):
    """Return the selected tap, or None."""
    best = None
    for tap in taps:
        if best is None or outranks(mode, tap[2], best[2]):
            best = tap
    return best


def selected_by_none(mode, dtype, is_all_nan):
    """Return the output of a window without a selectable tap."""
    if is_all_nan:
        return math.nan
    if dtype.kind in "iu":
        return np.iinfo(dtype).min if mode == "max" else np.iinfo(dtype).max
    return -math.inf if mode == "max" else math.inf


def exact_sum(values):
    """Return the correctly rounded sum, or IEEE's answer if a value is not finite."""
    values = list(values)
    return math.fsum(values) if all(map(math.isfinite, values)) else float(sum(values))


def integer_sum(values):
    """Return the sum, which must fit in an int64."""
    total = sum(values)
    if not -(2**63) <= total < 2**63:
        raise OverflowError(f"the sum is {total}")
    return total


def rounded(value, dtype):
    """Round a float or fraction to the nearest number of a type, ties to even."""
    bits, least = FORMATS[np.dtype(dtype).name]
    if value == 0 or not math.isfinite(value):
        return float(value)
    quantum = Fraction(2) ** (max(math.frexp(value)[1], least) - bits)
    return math.copysign(float(round(Fraction(value) / quantum) * quantum), value)


def norm(values, p):
    """Return the p-norm, scaled by the largest magnitude."""
    magnitudes = [abs(value) for value in values]
    if any(map(math.isnan, magnitudes)):
        return math.nan
    largest = max(magnitudes, default=0.0)
    if largest == 0 or math.isinf(largest) or math.isinf(p):
        return largest
    return largest * math.fsum((m / largest) ** p for m in magnitudes) ** (1 / p)


def result_type(mode, dtype):
    """Return the output type; sums of floats stay float64."""
    if mode in ("max", "min"):
        return dtype
    if dtype.kind not in "iu" or (mode == "average" and dtype == np.int64):
        return np.dtype(np.float64)
    return np.dtype({"sum": np.int64, "average": np.float32}[mode])


def forward(
    x,
    mode,
    windows,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
    norm_p=2.0,
    nan_policy="propagate",
):
    """Pool every window of every plane.

    Raises OverflowError if an integer sum overflows, ValueError if a NaN is an error.
    """
    sizes = x.shape[2:]
    shape = output_shape(x.shape, windows, ceil_mode)
    output = np.empty(shape, result_type(mode, x.dtype))
    taps = np.full(shape, NONE, np.int64)
    cells = np.full(shape, NONE, np.int64)
    for place in np.ndindex(shape):
        plane, spot = x[place[:2]], place[2:]
        valid = [at for at in taps_of(spot, windows) if is_valid(at, sizes)]
        if mode in ("max", "min"):
            best = select(mode, eligible(plane, spot, windows, nan_policy))
            if best is None:
                output[place] = selected_by_none(mode, x.dtype, is_all_nan=bool(valid))
            else:
                output[place] = plane[best[1]]
                taps[place], cells[place] = best[0], flat(best[1], sizes)
            continue
        values = [as_number(plane[at]) for at in valid]
        d = divisor(spot, sizes, windows, count_include_pad, divisor_override)
        if mode == "lp":
            output[place] = norm(values, norm_p)
        elif x.dtype.kind in "iu":
            total = integer_sum(values)
            mean = Fraction(total) / Fraction(d)
            output[place] = total if mode == "sum" else rounded(mean, output.dtype)
        else:
            output[place] = exact_sum(values) / (1 if mode == "sum" else d)
    return Pooled(output, taps, cells)


def flat(position, sizes):
    """Return a position in the spatial plane as one row-major number."""
    number = 0
    for at, size in zip(position, sizes, strict=True):
        number = number * size + at
    return number


def in_tensor(cells, shape):
    """Convert positions in the plane to positions in the tensor of `shape`."""
    numbers = np.full_like(cells, NONE)
    for place in np.ndindex(cells.shape):
        if cells[place] != NONE:
            plane = flat(place[:2], shape[:2])
            numbers[place] = plane * math.prod(shape[2:]) + cells[place]
    return numbers


def backward(
    dy,
    mode,
    shape,
    windows,
    x=None,
    taps=None,
    count_include_pad=True,
    divisor_override=None,
    norm_p=2.0,
    tie_policy="first",
    nan_policy="propagate",
):
    """Scatter the gradient of every window to its taps and add up exactly.

    `taps` are those of `forward`; "max" and "min" need them, or `x` if ties share the gradient;
    "lp" needs `x`.
    """
    received = defaultdict(list)
    sizes = shape[2:]
    for place in np.ndindex(dy.shape):
        plane, spot, g = place[:2], place[2:], float(dy[place])
        if mode in ("max", "min"):
            if tie_policy != "first":
                winners = tied(mode, eligible(x[plane], spot, windows, nan_policy))
            elif taps[place] != NONE:
                winners = [numbered_taps(spot, windows)[taps[place]]]
            else:
                winners = []
            for at in winners:
                received[plane + at].append(g / len(winners) if tie_policy == "split" else g)
            continue
        valid = [at for at in taps_of(spot, windows) if is_valid(at, sizes)]
        if mode == "lp":
            shares = norm_shares(g, [float(x[plane + at]) for at in valid], norm_p)
        elif mode == "sum":
            shares = [g] * len(valid)
        else:
            d = divisor(spot, sizes, windows, count_include_pad, divisor_override)
            shares = [g / d] * len(valid)
        for at, share in zip(valid, shares, strict=True):
            received[plane + at].append(share)
    dx = np.zeros(shape, np.float64)
    for cell, shares in received.items():
        dx[cell] = exact_sum(shares)
    return dx


def tied(mode, taps):
    """Return the positions of all taps tied with the selected one; NaNs tie with NaNs."""
    best = select(mode, taps)
    return [
        position
        for _, position, value in taps
        if value == best[2] or (math.isnan(value) and math.isnan(best[2]))
    ]


def norm_shares(g, values, p):
    """Return the gradient of each value of a norm: ``g * sign(v) * (abs(v) / y)^(p - 1)``."""
    y = norm(values, p)
    if y == 0:
        return [0.0] * len(values)
    signs = [float(np.sign(value)) for value in values]
    if math.isinf(p):
        ranks = [math.inf if math.isnan(v) else abs(v) for v in values]
        chosen = next((i for i, v in enumerate(values) if math.isnan(v)), ranks.index(max(ranks)))
        return [g * sign if i == chosen else 0.0 for i, sign in enumerate(signs)]
    return [g * sign * (abs(v) / y) ** (p - 1) for sign, v in zip(signs, values, strict=True)]


def to_type(values, dtype):
    """Cast floats, rounding once; the casts of `ml_dtypes` round twice."""
    if np.dtype(dtype).name == "bfloat16":
        values = np.array([rounded(float(v), dtype) for v in values.flat]).reshape(values.shape)
    return values.astype(dtype)


def ulp(values):
    """Return the distance from each magnitude to the next, as float64."""
    magnitudes = np.abs(values)
    if values.dtype.name == "bfloat16":  # a float32 with 16 bits less
        return np.spacing(magnitudes.astype(np.float32)).astype(np.float64) * 2**16
    return np.spacing(magnitudes).astype(np.float64)


def assert_same_bits(actual, expected):
    """Assert equal shape, type and bits."""
    assert actual.dtype == expected.dtype, (actual.dtype, expected.dtype)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    unsigned = np.dtype(f"u{actual.dtype.itemsize}")
    a, b = (np.ascontiguousarray(array).view(unsigned) for array in (actual, expected))
    if (a != b).any():
        where = tuple(map(int, np.argwhere(a != b)[0]))
        raise AssertionError(
            f"{(a != b).sum()} of {a.size} differ; at {where}: "
            f"{actual[where]} ({a[where]:#x}), expected {expected[where]} ({b[where]:#x})"
        )


def assert_close(actual, expected, ulps, slack=0.0):
    """Assert that `actual` is within `ulps` of its type, plus `slack`, of `expected`."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    with np.errstate(all="ignore"):
        nearest = to_type(expected, actual.dtype)
        allowed = ulps * ulp(nearest) + slack
        distance = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
        is_same = (actual == nearest) | (np.isnan(actual) & np.isnan(nearest))
        wrong = ~is_same & ~(np.isfinite(actual) & (distance <= allowed))
    if wrong.any():
        where = tuple(map(int, np.argwhere(wrong)[0]))
        raise AssertionError(
            f"{wrong.sum()} of {wrong.size} differ; at {where}: "
            f"{actual[where]!r}, expected {nearest[where]!r}"
        )
