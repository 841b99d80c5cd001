"""Limits of a call: size of the message, size of the tensors and of the reply, amount of work."""

from __future__ import annotations

from collections.abc import Sequence

from pooling_engine import PoolPlan, TensorTooLargeError
from pooling_server.config import ServerConfig, flag

_REPLY_OVERHEAD_BYTES = 1024  # upper bound of a reply without the elements of its tensors


def check_message_size(message: bytes, config: ServerConfig) -> None:
    """Check a request against the message limit.

    Raises:
        TensorTooLargeError: the request is larger than `max_message_bytes`.
    """
    check_request_bytes(len(message), config)


def check_request_bytes(size: int, config: ServerConfig) -> None:
    """Check the size of a request, which may not have arrived yet, as `check_message_size`."""
    limit = config.max_message_bytes
    if size > limit:
        raise _too_large("max_message_bytes", size, limit, "the request", "")


def check_plan_limits(
    plans: Sequence[PoolPlan], reply_bytes: int, field: str, config: ServerConfig
) -> None:
    """Check the tensors, the reply and the work of a call, before anything is allocated.

    Args:
        plans: plan of the call, or of each of its layers.
        reply_bytes: size of the tensors in the reply.
        field: the argument that determines the sizes.
        config: the limits.

    Raises:
        TensorTooLargeError: the call exceeds `max_tensor_bytes`, `max_message_bytes` or `max_taps`.
    """
    plan = max(plans, key=lambda plan: max(plan.input_bytes, plan.output_bytes))
    tensor = max(plan.input_bytes, plan.output_bytes)
    reply = reply_bytes + _REPLY_OVERHEAD_BYTES
    if tensor > config.max_tensor_bytes:
        shape = plan.input_shape if plan.input_bytes == tensor else plan.output_shape
        what = f"a tensor of shape {shape}"
        raise _too_large("max_tensor_bytes", tensor, config.max_tensor_bytes, what, field)
    if reply > config.max_message_bytes:
        raise _too_large("max_message_bytes", reply, config.max_message_bytes, "the reply", field)
    taps = sum(plan.tap_visits for plan in plans)
    if taps > config.max_taps:
        unit = "visits of window elements (taps)"
        raise _too_large("max_taps", taps, config.max_taps, "the call", "kernel", unit)


def _too_large(
    option: str, size: int, limit: int, what: str, field: str, unit: str = "bytes"
) -> TensorTooLargeError:
    return TensorTooLargeError(
        f"{what} takes {size} {unit}; this server's limit is {limit} ({flag(option)})",
        field=field,
        facts={"limit": option, "value": str(limit), "option": flag(option)},
    )
