"""The cases behind the vectors. Their sums are exact in float64, so a mean is rounded once."""

from __future__ import annotations

from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  NumPy learns bfloat16
import numpy as np

INF, NAN = np.inf, np.nan
FLOATS = ("float16", "bfloat16", "float32", "float64")
INTEGERS = ("int8", "uint8", "int16", "int32", "int64")
# By element size: gradients are multiples, so their shares of an average are exact. 720,720 is
# the least common multiple of 1 to 16; 36 fits 16-bit types, whose windows have 4 to 9 elements.
MULTIPLE_OF_DIVISORS = {2: 36, 4: 720_720, 8: 720_720}


class Case(NamedTuple):
    """One layer and its input.

    Attributes:
        name: name of the vector, without the direction.
        options: arguments of `PoolSpec`.
        x: the input, channels first; `layout` of the options says how it is sent.
        tied: True if the gradient depends on the input, not on indices.
    """

    name: str
    options: dict[str, Any]
    x: np.ndarray
    tied: bool = False


def small(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> np.ndarray:
    """Return small integers of both signs (none are negative for unsigned types)."""
    least = 0 if dtype.startswith("u") else -9
    return np.random.default_rng(seed).integers(least, 10, shape).astype(dtype)


def row(*values: float, dtype: str = "float32") -> np.ndarray:
    """Return one plane with one spatial axis."""
    return np.array([[values]], dtype)


K3S2 = {"kernel": 3, "stride": 2}
PADDED = {"kernel": 3, "stride": 2, "padding": 1}
UNEVEN = {"kernel": (2, 3), "stride": (1, 2), "padding": ((1, 0), (0, 2))}
CEIL = {"kernel": 4, "stride": 3, "padding": 2, "ceil_mode": True}
PLANE, CUBE = (2, 3, 7, 6), (1, 2, 3, 4, 3)

MODES: tuple[dict[str, Any], ...] = (
    {"mode": "max"},
    {"mode": "min"},
    {"mode": "average"},
    {"mode": "average", "count_include_pad": False},
    {"mode": "average", "divisor_override": -4.0},
    {"mode": "sum"},
)
NORMS: tuple[dict[str, Any], ...] = ({}, {"norm_p": 1.0}, {"norm_p": INF})
WINDOWS: tuple[tuple[str, dict[str, Any], tuple[int, ...]], ...] = (
    ("k3 s2", K3S2, (1, 1, 14)),
    ("k3 s2 p1", PADDED, PLANE),
    ("k2x3, padding on one side", UNEVEN, PLANE),
    ("ceil mode with an overhang", CEIL, PLANE),
    ("dilation 2", {"kernel": 2, "stride": 1, "dilation": 2}, PLANE),
    ("same_upper", {"kernel": 3, "stride": 2, "padding": "same_upper"}, PLANE),
    ("same_lower", {"kernel": 3, "stride": 2, "padding": "same_lower"}, PLANE),
    ("adaptive 3x4", {"adaptive_output": (3, 4)}, PLANE),
    ("global", {"global_window": True}, PLANE),
    ("three axes", {"kernel": 2, "stride": 1}, CUBE),
    (
        "windows without an element",
        {"kernel": 2, "stride": 2, "padding": 1, "dilation": 2},
        (1, 1, 1),
    ),
    ("an empty batch", {"kernel": 2}, (0, 3, 4)),
)
FIVES = row(3, -4, 5, 12, -8, 15)  # every pair has a norm that is an integer


def layer_cases() -> list[Case]:
    """Return every mode on every kind of window, in float32."""
    selected = [
        Case(f"{_words(mode)}, {name}", mode | window, small(shape, seed=number))
        for mode in MODES
        for number, (name, window, shape) in enumerate(WINDOWS)
    ]
    norms = [
        Case(
            f"{_words(norm | {'mode': 'lp'})}, k2", {"mode": "lp", "kernel": 2} | norm, FIVES, True
        )
        for norm in NORMS
    ]
    last = [
        Case(
            f"{_words(mode)}, channels last",
            mode | PADDED | {"layout": "channels_last"},
            small(PLANE),
        )
        for mode in MODES
    ]
    return selected + norms + last


def type_cases() -> list[Case]:
    """Return one layer for every element type and mode."""
    floats = [
        Case(f"{_words(mode)}, {dtype}", mode | PADDED, small((1, 2, 5, 5), dtype))
        for mode in MODES
        for dtype in FLOATS
    ]
    integers = [
        Case(f"{_words(mode)}, {dtype}", mode | PADDED, small((1, 2, 5, 5), dtype))
        for mode in MODES
        for dtype in INTEGERS
    ]
    return floats + integers


def forward_all_cases() -> list[tuple[str, list[Case]]]:
    """Return lists of layers that pool the same input, each with the name of its vector."""
    x = small(PLANE)
    pyramid = [{"adaptive_output": size} for size in (1, 2, 3)]
    rows: dict[str, list[dict[str, Any]]] = {
        "three kernels": [
            {"mode": "max", "kernel": k, "stride": 1, "padding": k // 2} for k in (3, 5, 7)
        ],
        "a pyramid": [{"mode": "average"} | windows for windows in pyramid],
        "indices of some": [{"mode": "sum"} | K3S2, {"mode": "max"} | K3S2, {"mode": "min"} | CEIL],
        "channels last": [
            {"mode": mode, "layout": "channels_last"} | PADDED for mode in ("average", "max")
        ],
    }
    cases = [(name, [Case("", options, x) for options in rows[name]]) for name in rows]
    integers = [Case("", {"mode": mode} | K3S2, small(PLANE, "uint8")) for mode in ("max", "sum")]
    return [*cases, ("integers", integers)]


def value_cases() -> list[Case]:
    """Return special values, ties, and windows with 16-bit indices."""
    values = row(1, NAN, 3, NAN, -0.0, 0.0, -INF, INF, 2)
    policies = [
        Case(f"{mode}, NaN {policy}", {"mode": mode, "nan_policy": policy} | K3S2, values)
        for mode in ("max", "min")
        for policy in ("propagate", "ignore")
    ]
    zeros = [
        Case(f"{mode}, zeros of both signs", {"mode": mode, "kernel": 2}, row(-0.0, 0.0, 0.0, -0.0))
        for mode in ("max", "min")
    ]
    ties = [
        Case(
            f"{mode}, ties {policy}",
            {"mode": mode, "kernel": 3, "stride": 1, "tie_policy": policy},
            row(1, 3, 3, 1, 3, 1, 1, 1),
            tied=policy != "first",
        )
        for mode in ("max", "min")
        for policy in ("first", "all", "split")
    ]
    wide = Case("max, indices of 16 bits", {"mode": "max", "kernel": (18, 17), "stride": 2},
                small((1, 1, 20, 19)))  # fmt: skip
    return [*policies, *zeros, *ties, wide]


def _words(mode: dict[str, Any]) -> str:
    """Return the mode and its options as the start of a name."""
    options = [
        f"{name.replace('_', ' ')} {str(value).lower()}"
        for name, value in mode.items()
        if name != "mode"
    ]
    return " ".join([mode["mode"], *options])
