"""What a call may ask for, checked before anything is allocated."""

from __future__ import annotations

from pooling_engine import TensorTooLargeError
from pooling_engine.plan import PoolPlan
from pooling_server.config import ServerConfig

_REPLY_OVERHEAD_BYTES = 1024  # everything in a reply but the elements of its tensors


def check_message(data: bytes, config: ServerConfig) -> None:
    """Refuses a request over the message limit.

    Raises:
        TensorTooLargeError: it is.
    """
    _refuse_over("max_message_bytes", len(data), config.max_message_bytes, "the request", "")


def check_plan(plan: PoolPlan, reply_bytes: int, field: str, config: ServerConfig) -> None:
    """Refuses a call whose tensors, reply or work would exceed a limit.

    Args:
        reply_bytes: the size of the tensors in the reply.
        field: the argument that chose the sizes.

    Raises:
        TensorTooLargeError: it would.
    """
    tensor = max(plan.input_bytes, plan.output_bytes)
    is_input = plan.input_bytes >= plan.output_bytes
    what = f"a tensor of shape {plan.input_shape if is_input else plan.output_shape}"
    _refuse_over("max_tensor_bytes", tensor, config.max_tensor_bytes, what, field)
    reply = reply_bytes + _REPLY_OVERHEAD_BYTES
    _refuse_over("max_message_bytes", reply, config.max_message_bytes, "the reply", field)
    _refuse_over("max_taps", plan.tap_visits, config.max_taps, "the work", "kernel", "tap visits")


def _refuse_over(
    limit: str, actual: int, value: int, what: str, field: str, unit: str = "bytes"
) -> None:
    if actual > value:
        flag = "--" + limit.replace("_", "-")
        raise TensorTooLargeError(
            f"{what} takes {actual} {unit}; this server's limit is {value} ({flag})",
            field=field,
            facts={"limit": limit, "value": str(value), "option": flag},
        )
