"""Decoding rejects every invalid spec: all combinations of mode, method, option and value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import pooling_wire
from pooling_engine import InvalidSpecError
from pooling_wire import METHODS
from pooling_wire.errors import field_path
from pooling_wire.v1 import pooling_pb2 as pb
from tests.support import invalid_specs
from tests.support.invalid_specs import InvalidSpec, request

DECODERS: dict[str, Callable[[bytes], Any]] = {
    method.name: method.decode_request for method in METHODS
}
DECODERS["GetPlan"] = pooling_wire.decode_plan_request

every_mode = pytest.mark.parametrize("mode", invalid_specs.MODES, ids=pb.Mode.Name)
every_method = pytest.mark.parametrize("method", DECODERS)


def assert_rejected(method: str, mode: int, invalid: InvalidSpec) -> None:
    data = request(method, invalid.spec, mode).SerializeToString()
    with pytest.raises(InvalidSpecError) as caught:
        DECODERS[method](data)
    assert field_path(caught.value.field) == invalid.path, caught.value


@pytest.mark.parametrize("value", invalid_specs.ABSURD)
@pytest.mark.parametrize("field", invalid_specs.SIZES)
@every_method
@every_mode
def test_absurd_sizes(mode: int, method: str, field: str, value: int) -> None:
    assert_rejected(method, mode, invalid_specs.absurd_size(mode, field, value))


@pytest.mark.parametrize("value", [0, *invalid_specs.ABSURD])
@every_method
@every_mode
def test_absurd_output_sizes(mode: int, method: str, value: int) -> None:
    assert_rejected(method, mode, invalid_specs.absurd_output(mode, value))


@pytest.mark.parametrize(
    ("mode", "option", "value"),
    [
        (mode, option, value)
        for option, value, modes in invalid_specs.OPTIONS
        for mode in invalid_specs.MODES
        if mode not in modes
    ],
)
@every_method
def test_options_of_other_modes(method: str, mode: int, option: str, value: Any) -> None:
    assert_rejected(method, mode, invalid_specs.option_of_other_modes(mode, option, value))


@pytest.mark.parametrize("named", invalid_specs.NAMED)
@every_method
@every_mode
def test_named_padding_excludes_pads_and_ceil_mode(mode: int, method: str, named: int) -> None:
    for invalid in invalid_specs.named_padding(mode, named):
        assert_rejected(method, mode, invalid)
