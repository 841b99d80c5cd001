"""Clients of a pooling server: blocking and asyncio, with the interface of `pooling_engine`.

from pooling_client import PoolingClient, PoolSpec

with PoolingClient("127.0.0.1:50051") as client:
    result = client.forward(x, PoolSpec("max", kernel=3, stride=2), return_indices=True)
"""

from pooling_client._async import AsyncPoolingClient
from pooling_client._sync import PoolingClient
from pooling_engine import (
    BackwardCall,
    DeadlineError,
    DeviceMemoryError,
    ForwardCall,
    ForwardResult,
    IndexFormat,
    InternalError,
    InvalidSpecError,
    InvalidTensorError,
    Layout,
    Mode,
    NamedPadding,
    NanPolicy,
    OverloadedError,
    PermissionDeniedError,
    PoolingError,
    PoolSpec,
    TensorTooLargeError,
    TiePolicy,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
    Window,
)
from pooling_wire import BackendInfo, Limits, ServerInfo

__all__ = [
    "AsyncPoolingClient",
    "BackendInfo",
    "BackwardCall",
    "DeadlineError",
    "DeviceMemoryError",
    "ForwardCall",
    "ForwardResult",
    "IndexFormat",
    "InternalError",
    "InvalidSpecError",
    "InvalidTensorError",
    "Layout",
    "Limits",
    "Mode",
    "NamedPadding",
    "NanPolicy",
    "OverloadedError",
    "PermissionDeniedError",
    "PoolSpec",
    "PoolingClient",
    "PoolingError",
    "ServerInfo",
    "TensorTooLargeError",
    "TiePolicy",
    "UnauthenticatedError",
    "UnavailableError",
    "UnsupportedError",
    "Window",
]
