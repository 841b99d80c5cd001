"""Global windows: one window over the whole plane, which is one axis of the block.

Reductions along that axis replace the passes over taps.
"""

from __future__ import annotations

import numpy as np

from pooling_engine.backends.numpy_backend.passes import Array
from pooling_engine.backends.numpy_backend.select import as_comparable, combine_of
from pooling_engine.backends.numpy_backend.sums import (
    make_canonical,
    norm_scale,
    times_sign,
    total_of,
    write_sums,
)
from pooling_engine.backends.rules import BLOCK, LANES, reject_nan
from pooling_engine.dtypes import as_summable, store
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import Mode, NanPolicy


def global_forward(plan: PoolPlan, x: Array, output: Array, indices: Array | None) -> None:
    """Pool planes (outer, positions, inner) into (outer, 1, inner)."""
    if plan.selects:
        _select(plan, x, output, indices)
        return
    x = as_summable(x)
    if plan.mode is Mode.LP:
        total = _norm(plan, np.abs(x, dtype=np.float64))
    else:
        total = total_of(plan, x, add_in_lanes)
    write_sums(plan, total, _divisor(plan), output)


def global_backward(plan: PoolPlan, dy: Array, x: Array | None, dx: Array) -> None:
    """Compute the gradient of AVERAGE, SUM and LP; MAX and MIN use `select_backward`."""
    gradient = dy.astype(np.float64)
    if plan.mode is Mode.AVERAGE:
        gradient /= _divisor(plan)
    if x is not None:
        magnitudes = np.abs(x, dtype=np.float64)
        norm = _norm(plan, magnitudes)
        ratio = np.where(magnitudes == norm, 1.0, magnitudes / norm)
        share = gradient * ratio ** (plan.norm_p - 1)
        gradient = times_sign(np.where(norm == 0, 0.0, share), x)
    store(dx, gradient)
    make_canonical(dx)


def _select(plan: PoolPlan, x: Array, output: Array, indices: Array | None) -> None:
    # NumPy has the rule of the contract: the first extreme, or the first NaN.
    choose = np.argmin if plan.mode is Mode.MIN else np.argmax
    values = as_comparable(plan, x)
    chosen = choose(values, axis=1, keepdims=True)
    output[...] = np.take_along_axis(x, chosen, axis=1)
    is_nan = np.isnan(output)
    is_none = np.zeros_like(is_nan)
    if is_nan.any():
        reject_nan(plan)
        if plan.nan_policy is NanPolicy.IGNORE:
            extreme = combine_of(plan).reduce(values, axis=1, keepdims=True)
            chosen = np.argmax(values == extreme, axis=1, keepdims=True)
            is_none = np.isnan(extreme)
            output[...] = np.take_along_axis(x, chosen, axis=1)
            output[is_none] = np.nan
    if indices is not None:
        np.copyto(indices, chosen, casting="unsafe")
        indices[is_none] = np.iinfo(indices.dtype).max


def add_in_lanes(values: Array, dtype: type) -> Array:
    """Return the sums of planes (outer, positions, inner) as (outer, 1, inner).

    With one channel per plane, elements are summed in the order of `rules.LANES`. A compiled loop
    can use the same order, with a vector of lanes. The order of `np.add.reduce` alone depends on
    NumPy's buffers.
    """
    outer, positions, inner = values.shape
    if inner > 1 or dtype is not np.float64:
        total: Array = np.add.reduce(values, axis=1, dtype=dtype, keepdims=True)
        return total
    whole = positions // BLOCK * BLOCK
    blocks = values[:, :whole].reshape(outer, -1, BLOCK // LANES, LANES)
    lanes = np.add.reduce(np.add.reduce(blocks, axis=2, dtype=np.float64), axis=1)
    # A row of zeros settles the sign of a zero; more rows, up to a block, would not change the sum.
    rows = min((positions - whole) // LANES + 2, BLOCK // LANES)
    rest = np.zeros((outer, rows * LANES))
    rest[:, : positions - whole] = values[:, whole:, 0]
    lanes += np.add.reduce(rest.reshape(outer, -1, LANES), axis=1)
    half = LANES // 2
    while half:
        lanes = lanes[:, :half] + lanes[:, half:]
        half //= 2
    sums: Array = lanes.reshape(outer, 1, 1)
    return sums


def _norm(plan: PoolPlan, magnitudes: Array) -> Array:
    scale = norm_scale(np.maximum.reduce(magnitudes, axis=1, keepdims=True), plan.norm_p)
    powers = (magnitudes / scale) ** plan.norm_p
    total: Array = np.add.reduce(powers, axis=1, keepdims=True) ** (1 / plan.norm_p) * scale
    return total


def _divisor(plan: PoolPlan) -> float:
    return plan.taps if plan.divisor_override is None else plan.divisor_override
