"""Specs with one invalid option, for every mode, and the paths of the fields at fault.

The tests of the codec take every combination. The tests over a socket take every pair of values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from pooling_wire.v1 import pooling_pb2 as pb
from tests.support.requests import adaptive, backward, forward, sliding, spec, tensor

SELECTING = (pb.MODE_MAX, pb.MODE_MIN)
MODES = tuple(number for number in pb.Mode.values() if number)
METHODS = ("Forward", "Backward", "GetPlan")

SIZES = ("kernel", "stride", "dilation", "padding_before", "padding_after")
ABSURD = (-1, -(2**62), -(2**63), 2**31, 2**62, 2**63 - 1)
NAMED = tuple(number for number in pb.NamedPadding.values() if number)
# Options: name, value, and the modes to which the option belongs.
OPTIONS = (
    ("count_include_pad", True, {pb.MODE_AVERAGE}),
    ("count_include_pad", False, {pb.MODE_AVERAGE}),
    ("divisor_override", 3, {pb.MODE_AVERAGE}),
    ("norm_p", 2, {pb.MODE_LP}),
    ("tie_policy", pb.TIE_POLICY_FIRST, set(SELECTING)),
    ("tie_policy", pb.TIE_POLICY_SPLIT, set(SELECTING)),
    ("nan_policy", pb.NAN_POLICY_PROPAGATE, set(SELECTING)),
    ("nan_policy", pb.NAN_POLICY_ERROR, set(SELECTING)),
)
_AXES = "spec.sliding_windows.axes"


class InvalidSpec(NamedTuple):
    """A spec, and the path of the field that makes it invalid."""

    spec: pb.PoolSpec
    path: str


def residual_of(mode: int) -> dict[str, Any]:
    """Return the fields of a valid Backward request that depend on the mode."""
    if mode == pb.MODE_LP:
        return {"indices": None, "input": tensor()}
    return {} if mode in SELECTING else {"indices": None}


def request(method: str, message: pb.PoolSpec, mode: int) -> Any:
    """Return a request that is valid except for its spec."""
    if method == "Forward":
        return forward(spec=message)
    if method == "Backward":
        return backward(spec=message, **residual_of(mode))
    shape, element = (1, 1, 4, 4), pb.ELEMENT_TYPE_FLOAT32
    return pb.GetPlanRequest(spec=message, input_shape=shape, element_type=element)


def absurd_size(mode: int, field: str, value: int) -> InvalidSpec:
    """Return a spec with a size that is negative or too large."""
    return InvalidSpec(spec(mode, sliding(**{field: value})), f"{_AXES}[1].{field}")


def absurd_output(mode: int, value: int) -> InvalidSpec:
    """Return a spec with an adaptive output size that is not positive or too large."""
    path = "spec.adaptive_windows.output_sizes[1]"
    return InvalidSpec(spec(mode, adaptive(2, value)), path)


def option_of_other_modes(mode: int, option: str, value: Any) -> InvalidSpec:
    """Return a spec with an option that does not apply to its mode."""
    return InvalidSpec(spec(mode, **{option: value}), f"spec.{option}")


def named_padding(mode: int, named: int) -> Iterator[InvalidSpec]:
    """Yield specs with a named padding together with explicit padding or ceil mode."""
    for field in ("padding_before", "padding_after"):
        yield InvalidSpec(spec(mode, sliding(named=named, **{field: 1})), f"{_AXES}[1].{field}")
    path = "spec.sliding_windows.ceil_mode"
    yield InvalidSpec(spec(mode, sliding(named=named, ceil_mode=True)), path)
