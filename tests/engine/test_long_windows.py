"""Windows of very many taps along one axis, against NumPy's reductions of each window."""

from __future__ import annotations

import numpy as np
import pytest

from pooling_engine import PoolSpec, UnsupportedError, backward, forward
from pooling_engine.backends.numpy_backend import block

MODES = ("max", "min", "average", "sum", "lp")
# (size, options, first and end of each window)
CASES = {
    "adaptive": (
        160_001,
        {"adaptive_output": 1000},
        [(i * 160_001 // 1000, -(-(i + 1) * 160_001 // 1000)) for i in range(1000)],
    ),
    "one window": (100_000, {"kernel": 100_000}, [(0, 100_000)]),
    "padded": (
        150_000,
        {"kernel": 80_000, "stride": 40_000, "padding": 20_000, "count_include_pad": False},
        [(0, 60_000), (20_000, 100_000), (60_000, 140_000)],
    ),
    "apart": (170_001, {"kernel": 70_000, "stride": 99_000}, [(0, 70_000), (99_000, 169_000)]),
}


def reduced(mode: str, taps: np.ndarray) -> np.ndarray:
    """Return the values of windows of one length; taps are along the last axis."""
    wide = taps.astype(np.longdouble)
    if mode in ("max", "min"):
        return getattr(taps, mode)(axis=-1)
    if mode == "lp":
        return np.sqrt((wide**2).sum(axis=-1))
    return wide.sum(axis=-1) / (taps.shape[-1] if mode == "average" else 1)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mode", MODES)
def test_every_mode(mode, case):
    size, options, windows = CASES[case]
    if mode != "average":
        options = {key: value for key, value in options.items() if key != "count_include_pad"}
    x = np.random.default_rng(1).standard_normal((1, 2, size)).astype(np.float32)
    spec, selects = PoolSpec(mode, **options), mode in ("max", "min")
    result = forward(x, spec, return_indices=selects)
    expected = np.stack([reduced(mode, x[..., a:b]) for a, b in windows], axis=-1)
    np.testing.assert_array_equal(result.output, expected.astype(np.float32))
    dy = np.arange(1, 1 + expected.size, dtype=np.float32).reshape(expected.shape)
    dx = np.zeros(x.shape)
    for number, (a, b) in enumerate(windows):
        given, taps = dy[..., number, None].astype(np.float64), x[..., a:b].astype(np.float64)
        if selects:
            share = taps == expected[..., number, None]
        elif mode == "lp":
            share = taps / np.sqrt((taps**2).sum(axis=-1, keepdims=True))
        else:
            share = 1 / (b - a) if mode == "average" else 1
        dx[..., a:b] += given * share
    residual = {"input": x} if mode == "lp" else {"input_shape": x.shape}
    if selects:
        residual["indices"] = result.indices
    actual = backward(dy, spec, **residual)
    np.testing.assert_allclose(
        actual, dx.astype(np.float32), rtol=2**-22 if mode == "lp" else 2**-23
    )


ONE_BY_ONE = (
    {"kernel": (5, 3), "stride": (2, 1), "padding": (2, 1)},
    {"kernel": (3, 2), "dilation": (4, 3), "padding": (3, 1), "ceil_mode": True},
    {"adaptive_output": (4, 7)},
    {"kernel": 4, "stride": 3, "layout": "channels_last"},
)


@pytest.mark.once
@pytest.mark.parametrize("options", ONE_BY_ONE, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_windows_one_by_one_have_the_bits_of_taps_one_by_one(mode, options, monkeypatch, run_with):
    x = np.random.default_rng(2).integers(-4, 5, (2, 13, 11, 3)).astype(np.float32) / 3
    x[0, 5, 4:7, 0] = np.nan, -0.0, np.inf
    policies = ("first", "split") if mode in ("max", "min") else ("first",)
    results = []
    for taps in (0, 1 << 40):
        monkeypatch.setattr(block, "WINDOW_TAPS", taps)
        for block_bytes in (8, 1 << 20):
            with run_with(block_bytes=block_bytes):
                for policy in policies:
                    spec = PoolSpec(mode, **options, tie_policy=policy)
                    output = forward(x, spec, backend="numpy").output
                    sums = mode in ("average", "sum")
                    residual = {"input_shape": x.shape} if sums else {"input": x}
                    dx = backward(output, spec, backend="numpy", **residual)
                    results.append((policy, output.tobytes(), dx.tobytes()))
    assert len(set(results)) == len(policies)


@pytest.mark.parametrize("mode", MODES)
def test_windows_that_are_nearly_all_padding(mode):
    most = 2**31 - 1
    x = np.array([[[4.0, 1.0, 2.0]]])
    options = {"count_include_pad": False} if mode == "average" else {}
    spec = PoolSpec(mode, most, most, most - 1, **options)
    expected = {"max": [4, 2], "min": [4, 1], "sum": [4, 3], "average": [4, 1.5]}
    output = forward(x, spec).output
    np.testing.assert_array_equal(output, [[expected.get(mode, [4, np.sqrt(5.0)])]])


@pytest.mark.once
@pytest.mark.parametrize(
    ("field", "options"),
    [("kernel[0]", {"kernel": 65_537}), ("adaptive_output[0]", {"adaptive_output": 65_537})],
)
def test_many_windows_with_many_different_taps_are_unsupported(field, options):
    x = np.zeros((1, 1, 131_073), np.float32)
    with pytest.raises(UnsupportedError, match=r"65537 windows with \d+ different taps") as error:
        forward(x, PoolSpec("max", stride=1 if "kernel" in options else None, **options))
    assert error.value.field == field
