"""GetPlan replies hold what `pooling_engine.plan` returns, for every case."""

from __future__ import annotations

from typing import Any

import pytest

import pooling_engine
from pooling_engine import PoolSpec
from pooling_wire.enums import element_type_number
from pooling_wire.messages.specs import encode_spec
from pooling_wire.v1 import pooling_pb2 as pb
from tests.support import cases

RULES = {None: 0}
RULES |= {
    name.removeprefix("DIVISOR_RULE_").lower(): number
    for name, number in pb.DivisorRule.items()
    if number
}


@pytest.mark.parametrize(
    ("dtype", "layout"), [("float32", "channels_first"), ("int64", "channels_last")]
)
@pytest.mark.parametrize(
    ("options", "sizes"),
    cases.all_cases(windows=cases.WINDOWS + cases.SIZED_WINDOWS),
    ids=cases.name_of,
)
def test_plans(
    stub: Any, options: dict[str, Any], sizes: tuple[int, ...], layout: str, dtype: str
) -> None:
    dtype = "float64" if options["mode"] == "lp" else dtype
    spec = PoolSpec(**options, layout=layout)
    shape = (2, *sizes, 3) if layout == "channels_last" else (2, 3, *sizes)
    ours = pooling_engine.plan(spec, shape, dtype)
    request = pb.GetPlanRequest(
        spec=encode_spec(spec, len(sizes)),
        input_shape=shape,
        element_type=element_type_number(ours.dtype),
    )
    plan = stub.GetPlan(request)
    assert tuple(plan.output_shape) == ours.output_shape
    assert plan.output_element_type == element_type_number(ours.output_dtype)
    assert plan.window_taps == ours.taps
    assert plan.divisor_rule == RULES[ours.divisor_rule]
    indices = element_type_number(ours.index_dtype) if ours.selects else 0
    assert plan.index_element_type == indices
    for axis, our_axis in zip(plan.axes, ours.planned_axes, strict=True):
        assert {field.name: value for field, value in axis.ListFields()} == {
            name: value for name, value in our_axis._asdict().items() if value
        }
