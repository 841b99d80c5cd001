"""Conversion of device indices to and from the positions of PyTorch and ONNX."""

from __future__ import annotations

import numpy as np

from pooling_engine.backends.cupy_backend.device.protocols import Device
from pooling_engine.backends.cupy_backend.planning.positions import positions_launch
from pooling_engine.backends.protocols import DeviceArray
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import IndexFormat


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
