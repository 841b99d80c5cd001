"""Computations and corner cases, their exact results, and the error of a result."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  registers bfloat16 with NumPy
import numpy as np

INF, NAN = math.inf, math.nan


class Accuracy(NamedTuple):
    """Computation with an exact result, on one plane.

    Attributes:
        title: the computation in words.
        dtype: the element type.
        options: of the spec; a forward pass unless `gradient` is given.
        values: the plane, as nested lists or an array.
        exact: the exact result, or a function of the plane, the options and the gradient.
        gradient: the output gradient of a backward pass.
        at: the position to compare; all positions by default.
    """

    title: str
    dtype: str
    options: dict
    values: Any
    exact: Fraction | Callable
    gradient: Any = None
    at: Any = ...


def blocks(x, options):
    """Yield the exact values of every window of non-overlapping windows."""
    kernel = options["kernel"]
    counts = [size // kernel for size in x.shape]
    for position in np.ndindex(*counts):
        block = x[tuple(slice(at * kernel, (at + 1) * kernel) for at in position)]
        yield [Fraction(value.item()) for value in block.ravel()]


def mean(x, options, _):
    return [sum(values) / len(values) for values in blocks(x, options)]


def total(x, options, _):
    return [sum(values) for values in blocks(x, options)]


def least(x, options, _):
    return [min(values) for values in blocks(x, options)]


def norm(x, options, _):
    return [exact_norm(values, options["norm_p"]) for values in blocks(x, options)]


def exact_norm(values, p):
    """Return the p-norm, rounded to 60 digits."""
    with localcontext(prec=60):
        power = sum(abs(value) ** p for value in values)
        decimal = Decimal(power.numerator) / Decimal(power.denominator)
        return Fraction(decimal.sqrt() if p == 2 else decimal ** (1 / Decimal(p)))


def norm_gradient(x, options, _):
    (values,) = blocks(x, options)
    return [value / exact_norm(values, 2) for value in values]


def mean_gradient(x, options, dy):
    """Return the exact gradient of average pooling with stride 1."""
    kernel, gradient = options["kernel"], np.full(x.shape, Fraction(0))
    for position in np.ndindex(dy.shape):
        window = tuple(slice(at, at + kernel) for at in position)
        gradient[window] += Fraction(dy[position].item()) / kernel**2
    return gradient.ravel().tolist()


def peak(size):
    x = np.zeros((size, size))
    x[size // 2, size // 2] = 1
    return x


def ones(size):
    return np.ones((size, size))


def random(*shape, seed=0, scale=1.0):
    return np.random.default_rng(seed).uniform(0, scale, shape)


TYPES16 = ("float16", "bfloat16")
AVERAGE, SUM = {"mode": "average"}, {"mode": "sum"}
NORM = {"mode": "lp", "norm_p": 2}
TENTH = Fraction(float(np.float32(0.1)))

ACCURACY = (
    Accuracy("average of 4096×4096 elements, all 0.1", "float32", AVERAGE | {"kernel": 4096},
             lambda: np.full((4096, 4096), 0.1), TENTH),
    Accuracy("average of 224×224 random elements", "float32", AVERAGE | {"kernel": 224},
             random(224, 224), mean),
    *(Accuracy("average of 7×7 random elements, worst of 400", dtype, AVERAGE | {"kernel": 7},
               random(140, 140), mean) for dtype in ("float32", *TYPES16)),
    Accuracy("average of 1e8, 1, −1e8", "float32", AVERAGE | {"kernel": 3}, [1e8, 1, -1e8], mean),
    *(Accuracy("average of 64×64 elements, all 300", dtype, AVERAGE | {"kernel": 64},
               300 * ones(64), Fraction(300)) for dtype in TYPES16),
    *(Accuracy(f"average, gradient of ones, {size}×{size} k{kernel} s1, centre", dtype,
               AVERAGE | {"kernel": kernel, "stride": 1}, ones(size),
               Fraction((size - kernel + 1) ** 2, kernel**2), ones(size - kernel + 1),
               (0, 0, size // 2, size // 2))
      for size, kernel in ((64, 33), (128, 65)) for dtype in TYPES16),
    *(Accuracy("average, random gradient, 24×24 k9 s1, worst", dtype,
               AVERAGE | {"kernel": 9, "stride": 1}, ones(24), mean_gradient, random(16, 16))
      for dtype in ("float32", *TYPES16)),
    *(Accuracy(f"max, gradient of ones, one peak in {(size - kernel + 1) ** 2} windows", dtype,
               {"mode": "max", "kernel": kernel, "stride": 1}, peak(size),
               Fraction((size - kernel + 1) ** 2), ones(size - kernel + 1),
               (0, 0, size // 2, size // 2))
      for size, kernel in ((64, 33), (128, 65)) for dtype in TYPES16),
    *(Accuracy(f"norm p2 of 3e{e} and 4e{e}", "float32", NORM | {"kernel": 2},
               [3 * 10.0**e, 4 * 10.0**e], norm) for e in (30, -30)),
    Accuracy("norm p2, gradient at 3e30 and 4e30", "float32", NORM | {"kernel": 2},
             [3e30, 4e30], norm_gradient, [1]),
    Accuracy("norm p2 of 300 and 400", "float16", NORM | {"kernel": 2}, [300, 400], norm),
    Accuracy("norm p2 of 1, 2, … 24", "float32", NORM | {"kernel": 24}, range(1, 25), norm),
    Accuracy("norm p3 of −5 and 4", "float32", NORM | {"kernel": 2, "norm_p": 3}, [-5, 4],
             norm),
    Accuracy("min of −128, 5, 6, 7", "int8", {"mode": "min", "kernel": 2}, [[-128, 5], [6, 7]],
             least),
    Accuracy("average of 1, 2, 2, 2", "int64", AVERAGE | {"kernel": 2}, [[1, 2], [2, 2]], mean),
    Accuracy("average of 2^62, 2^62, 2^62, 2^62", "int64", AVERAGE | {"kernel": 2},
             [[2**62] * 2] * 2, mean),
    Accuracy("sum of 2^60, 2^60, 2^60, 2^60", "int64", SUM | {"kernel": 2},
             [[2**60] * 2] * 2, total),
    Accuracy("sum of 2^62, 2^62, 2^62, 2^62: too large for the type", "int64", SUM | {"kernel": 2},
             [[2**62] * 2] * 2, total),
)  # fmt: skip


class Golden(NamedTuple):
    """Corner case, on one plane unless `values` has more axes.

    Attributes:
        number: as in `tests/support/golden.py`.
        title: the case in words.
        options: of the spec.
        values: the input.
        answers: the contract's results by name; empty if the contract does not support the case.
        dtype: the element type.
        gradient: the output gradient; a forward pass only if None.
        question: the results to compute, a key of `questions` in `__main__`.
        at: the position of the gradient to compare; all positions by default.
    """

    number: int
    title: str
    options: dict
    values: Any
    answers: dict
    dtype: str = "float32"
    gradient: Any = None
    question: str = "pool"
    at: Any = ...


MAX, LP = {"mode": "max"}, {"mode": "lp"}
INCLUDE, EXCLUDE = AVERAGE, AVERAGE | {"count_include_pad": False}
CEIL = {"ceil_mode": True}
NO_ELEMENT = {"kernel": 2, "stride": 2, "padding": 1, "dilation": 2}
WIDE = {"kernel": 4, "stride": 3, "padding": 2, "ceil_mode": True}
SAME = {"kernel": 3, "stride": 2, "padding": "same_upper"}
SQUARE = [4 / 9, 2 / 3, 1 / 3, 2 / 3, 1, 1 / 2, 1 / 3, 1 / 2, 1 / 4]
PADDED = {"kernel": 3, "stride": 1, "padding": 1}
CHANNELS = np.arange(64).reshape(2, 4, 4, 2).transpose(0, 3, 1, 2)  # numbered channels last

GOLDEN = (
    Golden(1, "max 2 2 2, k3", MAX | {"kernel": 3}, [2, 2, 2],
           {"y": 2, "index": 0, "dx": [1, 0, 0]}, gradient=[1]),
    Golden(2, "max 1 3 3 1 3, k3 s1", MAX | {"kernel": 3, "stride": 1}, [1, 3, 3, 1, 3],
           {"y": [3, 3, 3], "index": [1, 1, 2], "dx": [0, 11, 100, 0, 0]}, gradient=[1, 10, 100]),
    Golden(3, "max −5 −6, k3 s1 p1", MAX | PADDED, [-5, -6], {"y": [-5, -5], "index": [0, 0]}),
    Golden(4, "max of four −inf, k3 s1 p1", MAX | PADDED, [-INF] * 4,
           {"y": [-INF] * 4, "index": [0, 0, 1, 2]}),
    Golden(5, "max 1 nan 3 nan 5, k5", MAX | {"kernel": 5}, [1, NAN, 3, NAN, 5],
           {"y": NAN, "index": 1, "dx": [0, 1, 0, 0, 0]}, gradient=[1]),
    Golden(6, "max 2 nan 3, k3", MAX | {"kernel": 3}, [2, NAN, 3],
           {"y": NAN, "index": 1, "dx": [0, 1, 0]}, gradient=[1]),
    Golden(7, "max −0 0, k2", MAX | {"kernel": 2}, [-0.0, 0.0], {"y": -0.0, "index": 0}),
    Golden(8, "max, window without valid elements: L1 k2 s2 p1 d2", MAX | NO_ELEMENT, [7],
           {"y": -INF, "index": -1, "dx": 0}, gradient=[1]),
    *(Golden(9, f"the same, 1×1, {dtype}", MAX | NO_ELEMENT, [[7]],
             {"y": np.iinfo(dtype).min, "index": -1}, dtype) for dtype in ("int32", "uint8")),
    Golden(10, "max 1 2, k2 s2 p1 d2 ceil", MAX | NO_ELEMENT | CEIL, [1, 2],
           {"y": [2, 2], "index": [1, 1]}),
    Golden(11, "max −1 −2 / −3 −4, k2 s2 p1 d2 ceil, int64", MAX | NO_ELEMENT | CEIL,
           [[-1, -2], [-3, -4]], {"y": [-4] * 4, "index": [3] * 4}, "int64"),
    Golden(12, "output size, L4 k1 s2 ceil", MAX | CEIL | {"kernel": 1, "stride": 2}, np.ones(4),
           {"outputs": 2}, question="size"),
    Golden(13, "output size, 2×2 k3 s3 p1 ceil", MAX | CEIL | {"kernel": 3, "padding": 1}, ones(2),
           {"outputs": [1, 1]}, question="size"),
    Golden(14, "output size, L9 k4 s4 p2 ceil", MAX | CEIL | {"kernel": 4, "padding": 2},
           np.ones(9), {"outputs": 3}, question="size"),
    Golden(15, "output size, L6 k3 d2 s1 same upper",
           MAX | SAME | {"stride": 1, "dilation": 2}, np.ones(6), {"outputs": 6}, question="size"),
    Golden(16, "output size, L1 k3 s2 ceil", MAX | CEIL | {"kernel": 3, "stride": 2}, np.ones(1),
           {"outputs": "error"}, question="size"),
    Golden(17, "average of ones, L5 k4 s3 p2 ceil", INCLUDE | WIDE, np.ones(5),
           {"y": [0.5, 1, 1 / 3]}),
    Golden(18, "the same, pads not counted", EXCLUDE | WIDE, np.ones(5), {"y": [1, 1, 1]}),
    Golden(19, "average of ones, 4×4 k3 s2 p1 ceil",
           INCLUDE | CEIL | {"kernel": 3, "stride": 2, "padding": 1}, ones(4), {"y": SQUARE}),
    Golden(20, "average of 0 1 2 3, k3 s3 ceil", INCLUDE | CEIL | {"kernel": 3}, range(4),
           {"y": [1, 3]}),
    Golden(21, "average of ones, L7 k3 d2 s3 p1 ceil",
           INCLUDE | CEIL | {"kernel": 3, "dilation": 2, "padding": 1}, np.ones(7),
           {"y": [2 / 3, 1, 1 / 2]}),
    Golden(22, "average of ones, L4 k3 s2 same, pads not counted", EXCLUDE | SAME, np.ones(4),
           {"y": [1, 1]}),
    Golden(22, "the same, pads counted", INCLUDE | SAME, np.ones(4), {"y": [1, 2 / 3]}),
    Golden(23, "average of ones, L4 k3 s2 pads 0 and 2 ceil",
           INCLUDE | CEIL | {"kernel": 3, "stride": 2, "padding": [(0, 2)]}, np.ones(4),
           {"y": [1, 2 / 3]}),
    Golden(24, "norm p1 of −3 4", LP | {"norm_p": 1, "kernel": 2}, [-3, 4], {"y": 7}),
    Golden(25, "norm p3 of −5 4", LP | {"norm_p": 3, "kernel": 2}, [-5, 4], {"y": 189 ** (1 / 3)}),
    Golden(26, "norm p1 of ones, L4 k3 s3 ceil", LP | CEIL | {"norm_p": 1, "kernel": 3},
           np.ones(4), {"y": [3, 1]}),
    Golden(27, "norm p2 of 0 0", LP | {"kernel": 2}, [0, 0], {"y": 0, "dx": [0, 0]}, gradient=[1]),
    Golden(28, "norm p2 of −3 4", LP | {"kernel": 2}, [-3, 4], {"y": 5, "dx": [-0.6, 0.8]},
           gradient=[1]),
    Golden(29, "norm p2 of 1e30 1e30", LP | {"kernel": 2}, [1e30, 1e30], {"y": 2**0.5 * 1e30}),
    Golden(30, "min −128 5 6 7, int8", {"mode": "min", "kernel": 2}, [[-128, 5], [6, 7]],
           {"y": -128}, "int8"),
    Golden(31, "average of ones, 128×128 k65 s1, bfloat16, centre",
           AVERAGE | {"kernel": 65, "stride": 1}, ones(128), {"dx": 0.96875}, "bfloat16",
           ones(64), at=(0, 0, 64, 64)),
    Golden(32, "max, one peak, 64×64 k33 s1, bfloat16, centre", MAX | {"kernel": 33, "stride": 1},
           peak(64), {"dx": 1024}, "bfloat16", ones(32), at=(0, 0, 32, 32)),
    Golden(33, "average of 4096×4096 elements, all 0.1", AVERAGE | {"kernel": 4096},
           lambda: np.full((4096, 4096), 0.1), {"y": 0.1}),
    Golden(34, "adaptive average of 0 … 4 to 3", AVERAGE | {"adaptive_output": 3}, range(5),
           {"y": [0.5, 2, 3.5]}),
    Golden(34, "adaptive max of 0 … 4 to 3", MAX | {"adaptive_output": 3}, range(5),
           {"y": [1, 3, 4], "index": [1, 3, 4]}),
    Golden(35, "unpooling of 1 2 at positions 1 1, L4", {}, [1, 2], {"x": [0, 3, 0, 0]},
           question="unpool"),
    Golden(36, "N = 0: 0×3×4, k2", MAX | {"kernel": 2}, np.ones((0, 3, 4)),
           {"y": [0, 3, 2], "dx": [0, 3, 4]}, gradient=np.ones((0, 3, 2)), question="shapes"),
    Golden(37, "indices of 0 … 15 as 2×2×4, k2", MAX | {"kernel": 2},
           np.arange(16).reshape(2, 2, 4),
           {"plane": [1, 3] * 4, "tensor": list(range(1, 16, 2))}, question="formats"),
    Golden(38, "indices column by column, 2×1×4×4 k2", MAX | {"kernel": 2},
           np.arange(32).reshape(2, 1, 4, 4), {}, question="column_major"),
    Golden(39, "indices channels last, 2×4×4×2 k2, with and without the batch",
           MAX | {"kernel": 2}, CHANNELS, {}, question="channels_last"),
    Golden(40, "max, stride over kernel: L6 k1 s3", MAX | {"kernel": 1, "stride": 3}, range(6),
           {"y": [0, 3], "index": [0, 3], "dx": [1, 0, 0, 1, 0, 0]}, gradient=[1, 1]),
)  # fmt: skip


def tensor(values, dtype):
    """Return values as a tensor: one plane, unless they have batch and channel axes."""
    array = np.asarray(values() if callable(values) else values)
    if array.ndim < 3:
        array = array[None, None]
    return np.ascontiguousarray(array.astype(dtype))


def nearest(exact: Fraction, dtype: np.dtype):
    """Return the correctly rounded number of a type."""
    if dtype.kind in "iu":
        return round(exact)
    near = dtype.type(float(exact))
    down, up = (np.nextafter(near, dtype.type(end)) for end in (-math.inf, math.inf))
    is_odd = near.view(f"u{dtype.itemsize}") & 1
    return min((near, is_odd), (down, 1 - is_odd), (up, 1 - is_odd), key=distance_from(exact))[0]


def distance_from(exact: Fraction):
    """Return a sort key: the distance of a number, then even before odd."""
    return lambda pair: (
        (abs(Fraction(float(pair[0])) - exact), pair[1])
        if math.isfinite(float(pair[0]))
        else (math.inf, 1)
    )


def ulps(answer, exact: Fraction) -> float:
    """Return the distance of a result to the correctly rounded one, in ulp."""
    near = nearest(exact, answer.dtype)
    if answer.dtype.kind in "iu":
        return float(abs(int(answer) - near))
    if not np.isfinite(answer):
        return math.inf
    distance = abs(Fraction(float(answer)) - Fraction(float(near)))
    return float(distance / Fraction(float(abs(np.spacing(near)))))
