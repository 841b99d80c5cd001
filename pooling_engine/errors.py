"""Exceptions of all packages, as one tree.

    PoolingError
    ├── InvalidSpecError      ValueError           invalid options, or they do not fit the tensor
    ├── InvalidTensorError    ValueError           an invalid shape, type, length or entry
    ├── UnsupportedError      NotImplementedError  valid, but not supported by any backend
    ├── TensorTooLargeError   ValueError           a message, tensor or result exceeds a limit
    ├── DeviceMemoryError     MemoryError          not enough memory for the tensors
    ├── OverloadedError                            too many calls in flight; retry later
    ├── UnavailableError      ConnectionError      no server, or it shuts down, or lost its GPU
    ├── DeadlineError         TimeoutError         the deadline expired
    ├── PermissionDeniedError PermissionError      the credentials do not permit the call
    │   └── UnauthenticatedError                   no valid credentials
    └── InternalError         RuntimeError         a bug in this project

The engine raises the first five, and UnavailableError when a GPU is lost. The others belong to
the service. They are defined here so that local and remote calls raise the same classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

LOST_DEVICE = "device lost"


class PoolingError(Exception):
    """Base class of all errors of this project.

    Attributes:
        reason: stable name of the class, as sent over the network.
        field: the invalid argument, such as ``stride[1]``, or empty.
        facts: details for programs, so that they need not parse the text.
        plan: the `PoolPlan` of the call, if the constructor of the call raised the error after
            planning; else None. A server uses it to check the limits of an invalid call.
    """

    reason: ClassVar[str] = "POOLING"
    plan: Any = None  # set on instances; the class cannot import PoolPlan

    def __init__(
        self, message: str, *, field: str = "", facts: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.field = field
        self.facts = dict(facts or {})


class InvalidSpecError(PoolingError, ValueError):
    """Options that are invalid, contradict each other or do not fit the tensor."""

    reason = "INVALID_SPEC"


class InvalidTensorError(PoolingError, ValueError):
    """Tensor with an invalid shape, element type, length or entry."""

    reason = "INVALID_TENSOR"


class UnsupportedError(PoolingError, NotImplementedError):
    """Valid call that no available backend supports."""

    reason = "UNSUPPORTED"


class TensorTooLargeError(PoolingError, ValueError):
    """Message, tensor, result or amount of work that exceeds a limit."""

    reason = "TENSOR_TOO_LARGE"


class DeviceMemoryError(PoolingError, MemoryError):
    """Too little memory, on the host or the GPU, for the tensors of a call."""

    reason = "DEVICE_MEMORY"


class OverloadedError(PoolingError):
    """Too many calls in flight; the fact ``retry_after_s`` is the time to wait, in seconds.

    A rate limit of a proxy raises it too, without the fact unless the proxy states a time.
    """

    reason = "OVERLOADED"


class UnavailableError(PoolingError, ConnectionError):
    """No server at the target, or one that is shutting down; another server may answer.

    Also raised when the GPU is lost until the process is restarted; the fact ``cause`` is then
    `LOST_DEVICE`. The fact ``retryable`` is "false" if the same call would fail again.
    """

    reason = "UNAVAILABLE"


def lost_device(why: str) -> UnavailableError:
    """Return the error for a GPU that is lost."""
    text = f"the device is lost ({why}); retry later, or on another server"
    return UnavailableError(text, facts={"cause": LOST_DEVICE})


class DeadlineError(PoolingError, TimeoutError):
    """Deadline that expired before the result arrived."""

    reason = "DEADLINE"


class PermissionDeniedError(PoolingError, PermissionError):
    """Call that the credentials of the client do not permit."""

    reason = "PERMISSION_DENIED"


class UnauthenticatedError(PermissionDeniedError):
    """Call without valid credentials."""

    reason = "UNAUTHENTICATED"


class InternalError(PoolingError, RuntimeError):
    """Bug in this project. The text has an id under which the server's log has the details."""

    reason = "INTERNAL"
