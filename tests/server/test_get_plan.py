"""GetPlan: the resolved parameters of a spec, without a tensor, through plain stubs."""

from __future__ import annotations

from typing import Any

import pytest

import pooling_engine
from pooling_engine import PoolSpec
from pooling_wire.enums import element_type_number
from pooling_wire.messages.specs import encode_spec
from pooling_wire.v1 import pooling_pb2 as pb
from tests.server.support import BAD_SPEC, BAD_TENSOR, assert_rejected, assert_serves
from tests.support import cases

FLOAT32 = pb.ELEMENT_TYPE_FLOAT32


def sliding(named: int = 0, ceil_mode: bool = False, **window: int) -> dict[str, Any]:
    axes = [pb.Window(kernel=3, **window)] * 2
    windows = pb.SlidingWindows(axes=axes, named_padding=named, ceil_mode=ceil_mode)
    return {"sliding_windows": windows}


def request(mode: int, shape: tuple[int, ...], **options: Any) -> pb.GetPlanRequest:
    spec = pb.PoolSpec(mode=mode, **options)
    return pb.GetPlanRequest(spec=spec, input_shape=shape, element_type=FLOAT32)


def test_a_named_padding_is_resolved(stub: Any) -> None:
    windows = sliding(named=pb.NAMED_PADDING_SAME_UPPER, stride=2)
    plan = stub.GetPlan(request(pb.MODE_MAX, (2, 3, 8, 9), **windows))
    assert list(plan.output_shape) == [2, 3, 4, 5]
    assert [(a.padding_before, a.padding_after) for a in plan.axes] == [(0, 1), (1, 1)]
    assert [(a.kernel, a.stride, a.dilation) for a in plan.axes] == [(3, 2, 1)] * 2
    assert plan.index_element_type == pb.ELEMENT_TYPE_UINT8
    assert plan.window_taps == 9
    assert plan.divisor_rule == pb.DIVISOR_RULE_UNSPECIFIED


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({}, pb.DIVISOR_RULE_PADDED_TAPS),
        ({"count_include_pad": False}, pb.DIVISOR_RULE_VALID_TAPS),
        ({"divisor_override": 5}, pb.DIVISOR_RULE_OVERRIDE),
    ],
)
def test_the_divisor_rule_is_named(stub: Any, options: dict[str, Any], rule: int) -> None:
    plan = stub.GetPlan(request(pb.MODE_AVERAGE, (1, 1, 6, 6), **sliding(), **options))
    assert plan.divisor_rule == rule
    assert plan.index_element_type == pb.ELEMENT_TYPE_UNSPECIFIED


def test_adaptive_and_global_windows(stub: Any) -> None:
    windows = pb.AdaptiveWindows(output_sizes=(3, 4))
    plan = stub.GetPlan(request(pb.MODE_MAX, (1, 2, 5, 8), adaptive_windows=windows))
    assert list(plan.output_shape) == [1, 2, 3, 4]
    assert [(a.kernel, a.stride) for a in plan.axes] == [(3, 0), (2, 2)]
    whole = request(pb.MODE_MAX, (1, 2, 5, 300), global_window=pb.GlobalWindow())
    plan = stub.GetPlan(whole)
    assert [(a.size, a.outputs, a.kernel) for a in plan.axes] == [(5, 1, 5), (300, 1, 300)]
    assert plan.index_element_type == pb.ELEMENT_TYPE_UINT16


def test_a_plan_may_be_far_over_the_limits(stub: Any) -> None:
    plan = stub.GetPlan(request(pb.MODE_SUM, (1000, 1000, 60_000, 60_000), **sliding()))
    assert list(plan.output_shape) == [1000, 1000, 20_000, 20_000]


def test_invalid_arguments_are_rejected_as_by_forward(stub: Any) -> None:
    narrow = request(pb.MODE_MAX, (1, 1, 6, 2), **sliding())
    assert_rejected(stub.GetPlan, narrow, BAD_SPEC, "spec.sliding_windows.axes[1].kernel")
    flat = request(pb.MODE_MAX, (6, 6), **sliding())
    assert_rejected(stub.GetPlan, flat, BAD_TENSOR, "input_shape")
    untyped = pb.GetPlanRequest(spec=flat.spec, input_shape=(1, 1, 6, 6))
    assert_rejected(stub.GetPlan, untyped, BAD_TENSOR, "element_type")
    assert_rejected(stub.GetPlan, pb.GetPlanRequest(), BAD_SPEC, "spec")
    assert_serves(stub)


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
def test_plans_equal_those_of_the_engine(
    stub: Any, options: dict[str, Any], sizes: tuple[int, ...], layout: str, dtype: str
) -> None:
    dtype = "float64" if options["mode"] == "lp" else dtype
    spec = PoolSpec(**options, layout=layout)
    shape = (2, *sizes, 3) if layout == "channels_last" else (2, 3, *sizes)
    ours = pooling_engine.plan(spec, shape, dtype)
    message = pb.GetPlanRequest(
        spec=encode_spec(spec, len(sizes)),
        input_shape=shape,
        element_type=element_type_number(ours.dtype),
    )
    plan = stub.GetPlan(message)
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


def test_the_engine_returns_the_same_plan_in_process() -> None:
    plan = pooling_engine.plan(PoolSpec("average", 3, 2, "same_lower"), (2, 3, 8, 9), "float16")
    assert plan.output_shape == (2, 3, 4, 5)
    assert plan.output_dtype == "float16"
    assert plan.divisor_rule == "padded_taps"
    assert [(a.padding_before, a.padding_after) for a in plan.planned_axes] == [(1, 0), (1, 1)]
