"""Errors as gRPC statuses, and the tables that they and the enums are in."""

from __future__ import annotations

import grpc
import pytest

import pooling_engine
import pooling_wire
from pooling_engine import Mode, PoolingError
from pooling_wire import enums
from pooling_wire.errors import field_path
from pooling_wire.v1 import pooling_pb2 as pb
from tests.wire.support import CONCRETE_ERRORS, ERRORS, FakeRpcError


@pytest.mark.parametrize("class_", CONCRETE_ERRORS)
def test_round_trip(class_: type[PoolingError]) -> None:
    error = class_("what was sent", field="stride[1]", facts={"retry_after_s": "0.25"})
    sent = pooling_wire.encode_error(error)
    received = FakeRpcError(sent.code, sent.message, sent.details)
    again = pooling_wire.decode_error(received, "host:1")
    assert type(again) is class_
    assert (str(again), again.field, again.facts) == (str(error), error.field, error.facts)


def test_reasons_are_distinct() -> None:
    assert len({error.reason for error in ERRORS}) == len(ERRORS)


@pytest.mark.parametrize(
    ("code", "class_"),
    [
        (grpc.StatusCode.UNAVAILABLE, pooling_engine.UnavailableError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, pooling_engine.DeadlineError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, pooling_engine.TensorTooLargeError),
        (grpc.StatusCode.UNIMPLEMENTED, pooling_engine.UnsupportedError),
        (grpc.StatusCode.UNKNOWN, pooling_engine.InternalError),
    ],
)
def test_statuses_of_grpc_itself(code: grpc.StatusCode, class_: type[PoolingError]) -> None:
    error = pooling_wire.decode_error(FakeRpcError(code, "its text"), "host:1")
    assert type(error) is class_
    assert "host:1" in str(error)
    assert "its text" in str(error)


@pytest.mark.parametrize(
    ("field", "path"),
    [
        ("mode", "spec.mode"),
        ("kernel", "spec.sliding_windows.axes"),
        ("kernel[2]", "spec.sliding_windows.axes[2].kernel"),
        ("padding", "spec.sliding_windows.named_padding"),
        ("padding[0]", "spec.sliding_windows.axes[0].padding_before"),
        ("padding[1][1]", "spec.sliding_windows.axes[1].padding_after"),
        ("adaptive_output[0]", "spec.adaptive_windows.output_sizes[0]"),
        ("input.data", "input.data"),
        ("", ""),
    ],
)
def test_arguments_are_named_by_their_path_in_the_request(field: str, path: str) -> None:
    assert field_path(field) == path
    name = path.partition("[")[0].rpartition(".")[2]
    assert not path or name in {
        field.name
        for message in pb.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
    }


def test_a_missing_enum_entry_fails_at_import() -> None:
    with pytest.raises(AssertionError, match="Mode names differ"):
        enums.EnumTable({Mode.MAX: 1}, Mode, pb.Mode)
    numbers = dict(zip(Mode, (1, 2, 3, 4, 9), strict=True))
    with pytest.raises(AssertionError, match="Mode numbers differ"):
        enums.EnumTable(numbers, Mode, pb.Mode)
