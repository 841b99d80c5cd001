"""Rules that every backend follows."""

from __future__ import annotations

import numpy as np

from pooling_engine.dtypes import INTEGERS
from pooling_engine.errors import InvalidTensorError
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import Mode, NanPolicy

# Order of summation in a global window, or one that spans the plane, with channels first: the
# plane is cut into blocks of `BLOCK` elements. Element i of a block is added to lane ``i % LANES``
# of that block. Lanes are added up over the blocks, and then repeatedly the upper half of the lanes
# to the lower half. `cuda/whole.cu` has the same order.
LANES = 16
BLOCK = 64 * LANES  # short, so that no lane adds up many elements, which would cost accuracy


def empty_window_extreme(plan: PoolPlan) -> float:
    """Return the output of MAX or MIN for a window without a valid element."""
    if plan.dtype in INTEGERS:
        limits = np.iinfo(plan.dtype)
        return limits.max if plan.mode is Mode.MIN else limits.min
    return np.inf if plan.mode is Mode.MIN else -np.inf


def may_overflow(plan: PoolPlan) -> bool:
    """Return whether the sum of a window of integers can exceed 64 bits."""
    return plan.taps << (plan.dtype.itemsize * 8 - 1) >= 1 << 63


def reject_nan(plan: PoolPlan) -> None:
    """Reject a NaN that was found in a window, if the policy says so.

    Raises:
        InvalidTensorError: `nan_policy` is "error".
    """
    if plan.nan_policy is NanPolicy.ERROR:
        raise InvalidTensorError(
            'input has a NaN in a window; nan_policy "error" rejects it', field="input"
        )


def reject_overflow() -> None:
    """Reject integers whose sum overflows.

    Raises:
        InvalidTensorError: always.
    """
    raise InvalidTensorError("sum overflows: it does not fit in int64", field="input")
