"""Adaptive windows at regular steps, which the Numba backend computes as sliding windows."""

from __future__ import annotations

import numpy as np
import pytest

from pooling_engine import PoolSpec, backward, forward
from pooling_engine.backends.numba_backend.tables.regular_windows import sliding_axis
from pooling_engine.plans.geometry import AdaptiveAxis, resolve_adaptive
from tests.support import cases, oracle, palettes

pytestmark = pytest.mark.once  # every test names its backend

SIZES = range(1, 17)
MODES = ("max", "min", "average", "sum")
# (size, outputs): kernel, stride, and padding before the first element
REGULAR = {
    (13, 7): (3, 2, 1),
    (13, 6): (3, 2, 0),
    (14, 3): (6, 5, 1),
    (8, 7): (2, 1, 0),
    (7, 8): (2, 1, 1),
    (9, 2): (5, 4, 0),
    (12, 6): (2, 2, 0),
}
IRREGULAR = ((10, 4), (2, 5), (7, 5), (20, 8), (16, 6))


@pytest.mark.parametrize(("sizes", "window"), REGULAR.items(), ids=str)
def test_windows_at_regular_steps_slide(sizes, window):
    axis = sliding_axis(resolve_adaptive(0, *sizes))
    assert axis is not None
    found = axis.window
    assert (found.kernel, found.stride, found.padding_before) == window


@pytest.mark.parametrize("sizes", IRREGULAR, ids=str)
def test_other_windows_stay_adaptive(sizes):
    assert sliding_axis(resolve_adaptive(0, *sizes)) is None


def test_sliding_windows_have_the_elements_of_the_adaptive_ones():
    found = 0
    for size in range(1, 65):
        for outputs in range(1, 65):
            adaptive = resolve_adaptive(0, size, outputs)
            axis = sliding_axis(adaptive)
            if axis is None or not isinstance(adaptive, AdaptiveAxis):
                continue
            found += 1
            first, stop = axis.tap_limits()
            windows = [
                range(start + a, start + b)
                for start, a, b in zip(axis.starts(), first, stop, strict=True)
            ]
            assert windows == oracle.adaptive_windows(size, outputs)
    assert found > 100


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("size", SIZES)
def test_all_sizes_agree_with_the_numpy_backend(size, layout):
    rng = np.random.default_rng(size)
    for outputs in SIZES:
        width = int(rng.integers(1, 17))
        sizes, targets = (size, width), (outputs, int(rng.integers(1, 17)))
        if rng.random() < 0.5:
            sizes, targets = sizes[::-1], targets[::-1]
        for mode in MODES:
            options = {"mode": mode, "adaptive_output": targets, "layout": layout}
            _assert_same_bits(options, sizes, rng)
            if mode == "max":
                _assert_same_bits(options | {"adaptive_output": outputs}, (size, size), rng)


def _assert_same_bits(options, sizes, rng):
    spec = PoolSpec(**options)
    shape = (2, 3, *sizes)
    x = cases.to_layout(options, palettes.VALUES["ties"](shape, np.dtype(np.float32), 1))
    x = np.where(rng.random(x.shape) < 0.05, np.float32(np.nan), x)
    plain = [forward(x, spec, backend=name) for name in ("numba", "numpy")]
    oracle.assert_same_bits(plain[0].output, plain[1].output)
    dy = rng.standard_normal(plain[0].output.shape, np.float32)
    residual = {"input_shape": x.shape}
    if options["mode"] in ("max", "min"):
        own, other = (forward(x, spec, return_indices=True, backend=b) for b in ("numba", "numpy"))
        oracle.assert_same_bits(own.indices, other.indices)
        oracle.assert_same_bits(own.output, other.output)
        residual["indices"] = own.indices
    gradients = [backward(dy, spec, backend=name, **residual) for name in ("numba", "numpy")]
    oracle.assert_same_bits(*gradients)
