"""Element types of plans, as the kernels take them."""

from __future__ import annotations

import numpy as np

from pooling_engine.backends.numba_backend.language.arguments import ElementType
from pooling_engine.dtypes import BFLOAT16, is_bfloat16
from pooling_engine.plans.plan import PoolPlan

FLOATS_16 = tuple(dtype for dtype in (np.dtype(np.float16), BFLOAT16) if dtype is not None)


def element_of(plan: PoolPlan) -> ElementType:
    """Return the element type of a plan."""
    zero = np.float32(0) if plan.dtype in FLOATS_16 else plan.dtype.type(0)
    return ElementType(zero, is_bfloat16(plan.dtype))
