"""Launches that convert indices between taps and the positions of PyTorch and ONNX."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from pooling_engine.backends.cupy_backend.planning.choosing import general_variant
from pooling_engine.backends.cupy_backend.planning.geometry import (
    KERNEL_AXES,
    packed_windows,
    thread_count,
)
from pooling_engine.backends.cupy_backend.planning.kernels import INDICES, kernel_name
from pooling_engine.backends.cupy_backend.planning.launches import BLOCK_THREADS, Launch
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import IndexFormat


@lru_cache(maxsize=512)
def positions_launch(kernel: str, plan: PoolPlan, index_format: IndexFormat) -> Launch:
    """Return the launch that converts the indices of a plan.

    Args:
        kernel: "to_positions" (its arrays are the indices and the positions), or "from_positions"
            (positions, indices, a flag for an invalid position).
        plan: a plan for which `has_position_kernels` is true.
        index_format: format of the positions.
    """
    variant = general_variant(plan, is_aligned=False, of_input=False)
    dtype = np.int32 if variant.is_small else np.int64
    windows = packed_windows(plan, dtype, variant.work, rule=0)
    plane = math.prod(axis.size for axis in plan.axes)
    step = np.int64(plane if index_format is IndexFormat.TENSOR else 0)
    blocks = -(-thread_count(plan, variant.work) // BLOCK_THREADS)
    name = kernel_name(kernel, I=INDICES[plan.index_dtype], **variant.arguments)
    return Launch(*name, blocks, (step, windows))


def has_position_kernels(plan: PoolPlan) -> bool:
    """Return whether kernels convert the indices of a plan."""
    return len(plan.axes) <= KERNEL_AXES
