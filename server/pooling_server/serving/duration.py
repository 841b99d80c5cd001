"""Predicted duration of a call, which decides whether the polling thread may answer it."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from pooling_engine import Mode, PoolPlan

# Limits of a call that is answered in the polling thread, where it delays all other calls: the size
# of its message and of a region that it reads, and its predicted duration. See
# docs/adr/0013-polling-thread.md and 0014-polled-streams.md.
INLINE_BYTES = 256 << 10
INLINE_US = 3000

# Measured on the NumPy backend with empty caches, as upper bounds: compiled kernels leave some
# calls to it, for example beside NaNs. tests/server/test_duration.py has the slowest calls.
_CALL_US = 200
_SLICE_US = 20  # one slice of a tensor, with one operation on it
_ELEMENT_NS, _SLOW_ELEMENT_NS, _POWER_NS = 10, 25, 45
_PLANE_NS = 1500  # sum of a global window over one plane
_TARGET_NS = 5  # one entry of the table that maps indices to elements
_MOST_TARGETS = 1 << 20  # larger tables are not made


@lru_cache(maxsize=512)
def predicted_us(plan: PoolPlan, *, is_backward: bool, has_indices: bool) -> float:
    """Return an upper bound of the duration of a call in microseconds.

    Args:
        plan: plan of the call.
        is_backward: whether a gradient is computed.
        has_indices: whether indices are returned, or given.
    """
    elements = plan.tap_visits + math.prod(plan.input_shape) + math.prod(plan.output_shape)
    is_half = plan.is_float and plan.dtype.itemsize == 2
    is_slow = has_indices or (is_backward and (plan.selects or is_half))
    element_ns = _SLOW_ELEMENT_NS if is_slow else _ELEMENT_NS
    nanoseconds = elements * (_POWER_NS if plan.mode is Mode.LP else element_ns)
    if plan.is_global and not plan.selects:
        nanoseconds += plan.outer * _PLANE_NS
    if is_backward and has_indices:
        nanoseconds += _targets(plan) * _TARGET_NS
    slices = 1 if plan.is_global else sum(axis.slices for axis in plan.axes)
    return _CALL_US + slices * _SLICE_US + nanoseconds / 1000


def _targets(plan: PoolPlan) -> int:
    """Return an upper bound of the entries of the table that maps indices to elements.

    It has a row of all values that an index can have for each set of valid elements of a window.
    """
    rows = math.prod(min(axis.outputs, 2 * axis.kernel) for axis in plan.axes)
    return min(rows * int(np.iinfo(plan.index_dtype).max), _MOST_TARGETS)
