"""Everything that can go wrong, as one tree.

    PoolingError
    ├── InvalidSpecError      ValueError           options that make no sense, or not here
    ├── InvalidTensorError    ValueError           a wrong shape, type, length or entry
    ├── UnsupportedError      NotImplementedError  legal, but no backend here can do it
    ├── TensorTooLargeError   ValueError           a message, a tensor or a result over a limit
    ├── DeviceMemoryError     MemoryError          the device has no room for the tensor
    ├── OverloadedError                            too much in flight; try again later
    ├── UnavailableError      ConnectionError      no server there, or it stops, or lost its card
    ├── DeadlineError         TimeoutError         the deadline passed
    └── InternalError         RuntimeError         a bug of ours

The engine raises the first five, and UnavailableError where a card is lost. The others belong to
a service; they stand here so that a call reads the same whether it is local or remote.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

LOST_DEVICE = "device lost"


class PoolingError(Exception):
    """Base of all errors of this project.

    Attributes:
        reason: the stable name of the class; it crosses the wire.
        field: the argument at fault, such as ``stride[1]``, or empty.
        facts: what a program may want to read without parsing the text.
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
    """The options of a spec are wrong, contradict each other or do not fit the tensor."""

    reason = "INVALID_SPEC"


class InvalidTensorError(PoolingError, ValueError):
    """A tensor has the wrong shape, element type, length or entries."""

    reason = "INVALID_TENSOR"


class UnsupportedError(PoolingError, NotImplementedError):
    """Legal by the contract, but nothing here can compute it."""

    reason = "UNSUPPORTED"


class TensorTooLargeError(PoolingError, ValueError):
    """A message, a tensor, a result or the work for it exceeds a limit."""

    reason = "TENSOR_TOO_LARGE"


class DeviceMemoryError(PoolingError, MemoryError):
    """The device that computes has no room for the tensors of the call."""

    reason = "DEVICE_MEMORY"


class OverloadedError(PoolingError):
    """Too much is in flight; the fact ``retry_after_s`` says when to try again, in seconds."""

    reason = "OVERLOADED"


class UnavailableError(PoolingError, ConnectionError):
    """There is no server at the target, or it is stopping; another may answer.

    Or the device that computes is lost, until its process is started again: the fact ``cause`` is
    `LOST_DEVICE` then.
    """

    reason = "UNAVAILABLE"


def lost_device(why: str) -> UnavailableError:
    """The error of a device that is lost."""
    text = f"the device is lost ({why}); ask another server, or again later"
    return UnavailableError(text, facts={"cause": LOST_DEVICE})


class DeadlineError(PoolingError, TimeoutError):
    """The deadline passed before the answer was there."""

    reason = "DEADLINE"


class InternalError(PoolingError, RuntimeError):
    """A bug. The text holds an id; the server's log holds the rest under it."""

    reason = "INTERNAL"
