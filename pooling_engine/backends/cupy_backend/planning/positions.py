"""Device indices in the formats of PyTorch and ONNX: conversion between taps and positions."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from pooling_engine.backends.cupy_backend.device.protocols import Device, DeviceArray
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
        plan: a plan for which `has_kernels` is true.
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


def has_kernels(plan: PoolPlan) -> bool:
    """Return whether kernels convert the indices of a plan."""
    return len(plan.axes) <= KERNEL_AXES


def to_positions(
    device: Device,
    plan: PoolPlan,
    indices: DeviceArray,
    index_format: IndexFormat,
    positions: DeviceArray,
) -> None:
    """Write window indices as int64 positions in the plane or the tensor into `positions`."""
    launch = positions_launch("to_positions", plan, index_format)
    if launch.blocks:
        device.launch(launch, indices, positions)


def from_positions(
    device: Device, plan: PoolPlan, positions: DeviceArray, index_format: IndexFormat
) -> DeviceArray | None:
    """Convert positions into window indices, or return None if a position is invalid.

    A position is valid if a tap of its window lies on that element.
    """
    indices = device.empty(plan.output_shape, plan.index_dtype)
    launch = positions_launch("from_positions", plan, index_format)
    if not launch.blocks:
        return indices
    host_flag, flag = np.zeros(1, np.int32), device.empty((1,), np.dtype(np.int32))
    device.upload(host_flag, flag)
    device.launch(launch, positions, indices, flag)
    device.download(flag, host_flag)
    return None if host_flag[0] else indices
