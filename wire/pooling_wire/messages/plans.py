"""Plans: requests for the plan of a spec decoded, and plans encoded."""

from __future__ import annotations

from pooling_engine import PoolPlan
from pooling_engine.plans import MAX_INDEXED_TAPS, make_plan
from pooling_wire.enums import DIVISOR_RULES, element_dtype, element_type_number
from pooling_wire.messages.fields import required_spec
from pooling_wire.payloads.parsing import parse
from pooling_wire.payloads.tensors import decode_shape
from pooling_wire.v1 import pooling_pb2 as pb


def decode_plan_request(data: bytes) -> PoolPlan:
    """Return the plan that a GetPlanRequest requests.

    Raises:
        InvalidSpecError, InvalidTensorError, UnsupportedError: the request is invalid.
    """
    request = parse(pb.GetPlanRequest, data).message
    return make_plan(
        required_spec(request),
        decode_shape(request.input_shape, "input_shape"),
        element_dtype(request.element_type, "element_type"),
        shape_field="input_shape",
        dtype_field="element_type",
    )


def encode_plan_response(plan: PoolPlan) -> bytes:
    """Return the bytes of a GetPlanResponse."""
    response = pb.GetPlanResponse(
        output_shape=plan.output_shape,
        output_element_type=element_type_number(plan.output_dtype),
        axes=[pb.PlannedAxis(**axis._asdict()) for axis in plan.planned_axes],
        window_taps=plan.taps,
    )
    if plan.selects and plan.taps <= MAX_INDEXED_TAPS:
        response.index_element_type = element_type_number(plan.index_dtype)
    if plan.divisor_rule is not None:
        response.divisor_rule = DIVISOR_RULES.number(plan.divisor_rule)
    return response.SerializeToString()
