"""What a call may ask for, checked before anything is allocated."""

from __future__ import annotations

from pooling_engine import TensorTooLargeError
from pooling_engine.plans.plan import PoolPlan
from pooling_server.config import ServerConfig

_REPLY_OVERHEAD_BYTES = 1024  # everything in a reply but the elements of its tensors


def check_message(data: bytes, config: ServerConfig) -> None:
    """Refuses a request over the message limit.

    Raises:
        TensorTooLargeError: it is.
    """
    size, limit = len(data), config.max_message_bytes
    if size > limit:
        raise _too_much("max_message_bytes", size, limit, "the request", "")


def check_plan(plan: PoolPlan, reply_bytes: int, field: str, config: ServerConfig) -> None:
    """Refuses a call whose tensors, reply or work would exceed a limit.

    Args:
        reply_bytes: the size of the tensors in the reply.
        field: the argument that chose the sizes.

    Raises:
        TensorTooLargeError: it would.
    """
    tensor = max(plan.input_bytes, plan.output_bytes)
    reply = reply_bytes + _REPLY_OVERHEAD_BYTES
    if tensor > config.max_tensor_bytes:
        shape = plan.input_shape if plan.input_bytes == tensor else plan.output_shape
        what = f"a tensor of shape {shape}"
        raise _too_much("max_tensor_bytes", tensor, config.max_tensor_bytes, what, field)
    if reply > config.max_message_bytes:
        raise _too_much("max_message_bytes", reply, config.max_message_bytes, "the reply", field)
    if plan.tap_visits > config.max_taps:
        taps = plan.tap_visits
        raise _too_much("max_taps", taps, config.max_taps, "the work", "kernel", "tap visits")


def _too_much(
    limit: str, actual: int, value: int, what: str, field: str, unit: str = "bytes"
) -> TensorTooLargeError:
    flag = "--" + limit.replace("_", "-")
    return TensorTooLargeError(
        f"{what} takes {actual} {unit}; this server's limit is {value} ({flag})",
        field=field,
        facts={"limit": limit, "value": str(value), "option": flag},
    )
