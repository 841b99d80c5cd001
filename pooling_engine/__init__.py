"""Pooling layers and the gradients of their inputs, on arrays.

from pooling_engine import PoolSpec, forward, backward

spec = PoolSpec("max", kernel=3, stride=2, padding=1)
result = forward(x, spec, return_indices=True)
dx = backward(dy, spec, input_shape=x.shape, indices=result.indices)
"""

from pooling_engine.api import ForwardResult, backward, forward, forward_all, plan, run, warm_up
from pooling_engine.calls import ArraySpec, BackwardCall, ForwardAllCall, ForwardCall
from pooling_engine.errors import (
    DeadlineError,
    DeviceMemoryError,
    InternalError,
    InvalidSpecError,
    InvalidTensorError,
    OverloadedError,
    PermissionDeniedError,
    PoolingError,
    TensorTooLargeError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from pooling_engine.plans import PlannedAxis, PoolPlan
from pooling_engine.runtime import set_thread_count, thread_count
from pooling_engine.specs import (
    DivisorRule,
    IndexFormat,
    Layout,
    Mode,
    NamedPadding,
    NanPolicy,
    PoolSpec,
    TiePolicy,
    Window,
)

__all__ = [
    "ArraySpec",
    "BackwardCall",
    "DeadlineError",
    "DeviceMemoryError",
    "DivisorRule",
    "ForwardAllCall",
    "ForwardCall",
    "ForwardResult",
    "IndexFormat",
    "InternalError",
    "InvalidSpecError",
    "InvalidTensorError",
    "Layout",
    "Mode",
    "NamedPadding",
    "NanPolicy",
    "OverloadedError",
    "PermissionDeniedError",
    "PlannedAxis",
    "PoolPlan",
    "PoolSpec",
    "PoolingError",
    "TensorTooLargeError",
    "TiePolicy",
    "UnauthenticatedError",
    "UnavailableError",
    "UnsupportedError",
    "Window",
    "backward",
    "forward",
    "forward_all",
    "plan",
    "run",
    "set_thread_count",
    "thread_count",
    "warm_up",
]
