"""Pooling as the contract says it: loops over outputs and taps, Python numbers, exact sums.

Slow and obvious, and free of any code of ours. Tensors are channels first. A window is given
as one tuple ``(kernel, stride, dilation, before, after)`` for each spatial axis. An index of
-1 means "none". Sums come back as float64, selected elements bit for bit.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from typing import NamedTuple

import numpy as np

NONE = -1


class Pooled(NamedTuple):
    """The outputs, and of each the selected tap in its window and in the plane."""

    output: np.ndarray
    taps: np.ndarray
    cells: np.ndarray


def named_padding(name, size, kernel, stride, dilation):
    """Section 2: what "valid", "same_upper" and "same_lower" pad before and after."""
    if name == "valid":
        return 0, 0
    outputs = math.ceil(size / stride)
    total = max(0, (outputs - 1) * stride + (kernel - 1) * dilation + 1 - size)
    smaller, larger = total // 2, total - total // 2
    return (smaller, larger) if name == "same_upper" else (larger, smaller)


def output_size(size, window, ceil_mode=False):
    """Section 2: the outputs along one axis; less than 1 where no window fits."""
    kernel, stride, dilation, before, after = window
    room = size + before + after - ((kernel - 1) * dilation + 1)
    if not ceil_mode:
        return room // stride + 1
    outputs = (room + stride - 1) // stride + 1
    return outputs - 1 if (outputs - 1) * stride >= size + before else outputs


def output_shape(shape, windows, ceil_mode=False):
    """The shape of the output of an input of `shape`."""
    sizes = (
        output_size(size, window, ceil_mode)
        for size, window in zip(shape[2:], windows, strict=True)
    )
    return (*shape[:2], *sizes)


def taps_of(place, windows):
    """The position of every tap of the window at output `place`, in row-major window order."""
    along = [
        [output * stride - before + tap * dilation for tap in range(kernel)]
        for output, (kernel, stride, dilation, before, _) in zip(place, windows, strict=True)
    ]
    return list(itertools.product(*along))


def is_valid(position, sizes):
    """Whether a tap is on an element."""
    return all(0 <= at < size for at, size in zip(position, sizes, strict=True))


def divisor(place, sizes, windows, count_include_pad=True, divisor_override=None):
    """Section 3: the divisor of the average at output `place`."""
    if divisor_override is not None:
        return divisor_override
    if not count_include_pad:
        return max(1, sum(is_valid(position, sizes) for position in taps_of(place, windows)))
    ends = [size + window[4] for size, window in zip(sizes, windows, strict=True)]
    return sum(
        all(at < end for at, end in zip(position, ends, strict=True))
        for position in taps_of(place, windows)
    )


def outranks(mode, challenger, holder):
    """Section 3: whether a later element is selected over the one held so far."""
    if math.isnan(holder):
        return False
    if math.isnan(challenger):
        return True
    return challenger > holder if mode == "max" else challenger < holder


def select(mode, plane, place, windows):
    """The number and the position of the selected tap, or None."""
    best = None
    for number, position in enumerate(taps_of(place, windows)):
        if is_valid(position, plane.shape) and (
            best is None or outranks(mode, float(plane[position]), float(plane[best[1]]))
        ):
            best = number, position
    return best


def exact_sum(values):
    """The correctly rounded sum; IEEE's answer where a value is not finite."""
    values = list(values)
    return math.fsum(values) if all(map(math.isfinite, values)) else float(sum(values))


def norm(values, p):
    """The p-norm, scaled by the largest magnitude."""
    magnitudes = [abs(value) for value in values]
    if any(map(math.isnan, magnitudes)):
        return math.nan
    largest = max(magnitudes, default=0.0)
    if largest == 0 or math.isinf(largest) or math.isinf(p):
        return largest
    return largest * math.fsum((m / largest) ** p for m in magnitudes) ** (1 / p)


def forward(
    x, mode, windows, ceil_mode=False, count_include_pad=True, divisor_override=None, norm_p=2.0
):
    """Sections 1 to 4: pools every window of every plane on its own."""
    sizes = x.shape[2:]
    selects = mode in ("max", "min")
    shape = output_shape(x.shape, windows, ceil_mode)
    output = np.empty(shape, x.dtype if selects else np.float64)
    taps = np.full(shape, NONE, np.int64)
    cells = np.full(shape, NONE, np.int64)
    for place in np.ndindex(shape):
        plane, spot = x[place[:2]], place[2:]
        if selects:
            output[place] = -math.inf if mode == "max" else math.inf
            best = select(mode, plane, spot, windows)
            if best is not None:
                output[place] = plane[best[1]]
                taps[place], cells[place] = best[0], flat(best[1], sizes)
            continue
        values = [float(plane[at]) for at in taps_of(spot, windows) if is_valid(at, sizes)]
        if mode == "lp":
            output[place] = norm(values, norm_p)
        elif mode == "sum":
            output[place] = exact_sum(values)
        else:
            output[place] = exact_sum(values) / divisor(
                spot, sizes, windows, count_include_pad, divisor_override
            )
    return Pooled(output, taps, cells)


def flat(position, sizes):
    """Section 4: a position in the spatial plane as one number, row-major."""
    number = 0
    for at, size in zip(position, sizes, strict=True):
        number = number * size + at
    return number


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
):
    """Section 3: every window's gradient, handed to the cells of its taps and added up exactly.

    `taps` are those of `forward`; "max" and "min" need them, "lp" needs `x`.
    """
    received = defaultdict(list)
    sizes = shape[2:]
    for place in np.ndindex(dy.shape):
        plane, spot, g = place[:2], place[2:], float(dy[place])
        positions = taps_of(spot, windows)
        if mode in ("max", "min"):
            if taps[place] != NONE:
                received[plane + positions[taps[place]]].append(g)
            continue
        valid = [at for at in positions if is_valid(at, sizes)]
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


def norm_shares(g, values, p):
    """The gradient of each value of one window's norm: ``g * sign(v) * (abs(v) / y)^(p - 1)``."""
    y = norm(values, p)
    if y == 0:
        return [0.0] * len(values)
    signs = [math.copysign(1, value) if value else value for value in values]
    if math.isinf(p):
        ranks = [math.inf if math.isnan(v) else abs(v) for v in values]
        chosen = next((i for i, v in enumerate(values) if math.isnan(v)), ranks.index(max(ranks)))
        return [g * sign if i == chosen else 0.0 for i, sign in enumerate(signs)]
    return [g * sign * (abs(v) / y) ** (p - 1) for sign, v in zip(signs, values, strict=True)]


def assert_same_bits(actual, expected):
    """Raises at the first element that differs in any bit, or where shape or type differ."""
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
    """Raises where `actual` is further than `ulps` of its type, plus `slack`, from `expected`."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    with np.errstate(all="ignore"):
        rounded = expected.astype(actual.dtype)
        allowed = ulps * np.abs(np.spacing(np.abs(rounded))).astype(np.float64) + slack
        distance = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
        is_same = (actual == rounded) | (np.isnan(actual) & np.isnan(rounded))
        wrong = ~is_same & ~(np.isfinite(actual) & (distance <= allowed))
    if wrong.any():
        where = tuple(map(int, np.argwhere(wrong)[0]))
        raise AssertionError(
            f"{wrong.sum()} of {wrong.size} differ; at {where}: "
            f"{actual[where]!r}, expected {rounded[where]!r}"
        )
