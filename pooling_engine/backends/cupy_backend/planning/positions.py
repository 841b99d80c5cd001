"""Indices of the card in PyTorch's and ONNX's formats: positions from taps, and taps from those."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from pooling_engine.backends.cupy_backend.device.protocols import Device, DeviceArray
from pooling_engine.backends.cupy_backend.planning import names
from pooling_engine.backends.cupy_backend.planning.choosing import any_shape
from pooling_engine.backends.cupy_backend.planning.geometry import (
    KERNEL_AXES,
    threads_of,
    windows_of,
)
from pooling_engine.backends.cupy_backend.planning.launches import THREADS, Launch
from pooling_engine.backends.cupy_backend.planning.names import INDICES
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import IndexFormat


@lru_cache(maxsize=512)
def positions_launch(
    kernel: Callable[[str, str], names.Name], plan: PoolPlan, index_format: IndexFormat
) -> Launch:
    """What converts the indices of a plan with up to `KERNEL_AXES` spatial axes.

    Args:
        kernel: `names.to_positions`, which takes indices and positions; or `names.from_positions`,
            which takes positions, indices, and where to say that a position is wrong.
    """
    shape = any_shape(plan, is_aligned=False, of_input=False)
    windows = windows_of(plan, np.int32 if shape.is_small else np.int64, shape.share, rule=0)
    plane = math.prod(axis.size for axis in plan.axes)
    step = np.int64(plane if index_format is IndexFormat.TENSOR else 0)
    blocks = -(-threads_of(plan, shape.share) // THREADS)
    name = kernel(INDICES[plan.index_dtype], shape.name)
    return Launch(*name, blocks, (step, windows))


def has_kernels(plan: PoolPlan) -> bool:
    """Whether the two functions below take the indices of a plan."""
    return len(plan.axes) <= KERNEL_AXES


def to_positions(
    device: Device, plan: PoolPlan, indices: DeviceArray, index_format: IndexFormat
) -> DeviceArray:
    """Window indices of the output's shape as int64 positions in the plane or the tensor."""
    positions = device.empty(plan.output_shape, np.dtype(np.int64))
    launch = positions_launch(names.to_positions, plan, index_format)
    if launch.blocks:
        device.launch(launch, indices, positions)
    return positions


def from_positions(
    device: Device, plan: PoolPlan, positions: DeviceArray, index_format: IndexFormat
) -> DeviceArray | None:
    """Window indices from positions; None where one is not that of a tap on an element."""
    indices = device.empty(plan.output_shape, plan.index_dtype)
    launch = positions_launch(names.from_positions, plan, index_format)
    if not launch.blocks:
        return indices
    mark, doubt = np.zeros(1, np.int32), device.empty((1,), np.dtype(np.int32))
    device.upload(mark, doubt)
    device.launch(launch, positions, indices, doubt)
    device.download(doubt, mark)
    return None if mark[0] else indices
