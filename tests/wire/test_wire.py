"""The wire: every enum and every message there and back, and statuses for every error."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import grpc
import numpy as np
import pytest

import pooling_engine
import pooling_wire
from pooling_engine import ForwardResult, IndexFormat, PoolingError, PoolSpec
from pooling_engine.specs.enums import NanPolicy, TiePolicy
from pooling_wire import enums
from pooling_wire import errors as status
from pooling_wire.messages.specs import decode_spec, encode_spec
from pooling_wire.payloads.tensors import ALIGNED_BYTES, decode_tensor, message_parts
from pooling_wire.v1 import pooling_pb2 as pb

SPECS = {
    "max": PoolSpec("max", 3, 2, 1),
    "min, every axis its own": PoolSpec("min", (3, 2), (1, 2), ((1, 0), (0, 1)), (2, 1)),
    "ceil mode": PoolSpec("sum", 3, 2, 1, ceil_mode=True),
    "named padding": PoolSpec("average", 3, 2, "same_lower"),
    "valid padding": PoolSpec("average", 3, 2, "valid"),
    "divisor": PoolSpec("average", 3, divisor_override=-2.5),
    "exclude padding": PoolSpec("average", 3, padding=1, count_include_pad=False),
    "p": PoolSpec("lp", 3, norm_p=3.5),
    "p infinite": PoolSpec("lp", 3, norm_p=np.inf),
    "channels last": PoolSpec("max", 3, layout="channels_last"),
    "policies": PoolSpec("max", 3, tie_policy=TiePolicy.SPLIT, nan_policy=NanPolicy.IGNORE),
    "adaptive": PoolSpec("average", adaptive_output=(7, 5)),
    "global": PoolSpec("max", global_window=True),
}


@pytest.mark.parametrize("name", SPECS)
def test_specs_there_and_back(name: str) -> None:
    spec = SPECS[name]
    message = encode_spec(spec, 2)
    again = decode_spec(pb.PoolSpec.FromString(message.SerializeToString()))
    assert encode_spec(again, 2) == message
    for option in ("mode", "ceil_mode", "count_include_pad", "divisor_override", "norm_p"):
        assert getattr(again, option) == getattr(spec, option)
    for option in ("layout", "tie_policy", "nan_policy", "adaptive_output", "global_window"):
        assert getattr(again, option) == getattr(spec, option)
    if spec.kernel is not None:
        assert again.windows(2) == spec.windows(2)
        assert isinstance(again.padding, str) == isinstance(spec.padding, str)


def test_defaults_of_the_message_are_those_of_the_spec() -> None:
    windows = pb.SlidingWindows(axes=[pb.Window(kernel=3)])
    decoded = decode_spec(pb.PoolSpec(mode=pb.MODE_MAX, sliding_windows=windows))
    assert decoded.windows(1) == PoolSpec("max", 3).windows(1)
    assert encode_spec(decoded, 1) == encode_spec(PoolSpec("max", 3), 1)


def carried(array: Any) -> pb.Tensor:
    """The tensor message that our encoder puts into a reply, as the generated classes read it."""
    data = b"".join(message_parts(pb.BackwardResponse, b"", {"input_gradient": array}))
    return pb.BackwardResponse.FromString(data).input_gradient


@pytest.mark.parametrize("dtype", pb.ElementType.keys()[1:])
@pytest.mark.parametrize("shape", [(2, 3, 4), (0, 3, 4), (1,), (), (40, 5, 11)])
def test_tensors_there_and_back(dtype: str, shape: tuple[int, ...]) -> None:
    number = pb.ElementType.Value(dtype)
    native = enums.element_dtype(number, "x").newbyteorder("=")
    array = np.arange(math.prod(shape)).reshape(shape).astype(native)
    for order in (array, array.T.copy().T, array.astype(array.dtype.newbyteorder(">"))):
        again = decode_tensor(carried(order), "x")
        np.testing.assert_array_equal(again, array, strict=True)
        assert not again.flags.writeable


def test_a_transposed_array_arrives_transposed() -> None:
    array = np.arange(6.0).reshape(2, 3).T
    np.testing.assert_array_equal(decode_tensor(carried(array), "x"), array)


def test_the_elements_are_little_endian() -> None:
    assert carried(np.array([1.0], ">f4")).data == b"\x00\x00\x80\x3f"


@pytest.mark.parametrize(
    "type_", [pb.ForwardRequest, pb.BackwardRequest, pb.ForwardResponse, pb.BackwardResponse]
)
def test_tensors_have_the_highest_numbers_of_their_message(type_: Any) -> None:
    fields = sorted(type_.DESCRIPTOR.fields, key=lambda field: field.number)
    carries = [field.message_type is pb.Tensor.DESCRIPTOR for field in fields]
    assert carries == sorted(carries)
    assert fields[-1].number == pb.Tensor.DATA_FIELD_NUMBER == 15


@pytest.mark.parametrize("size", [0, 1, 31, 32, 127, 128, 4000, 32_000])
def test_the_bytes_are_those_of_the_generated_classes(size: int) -> None:
    output, indices = np.arange(size, dtype=np.float32), np.arange(size).astype(np.uint8)
    ours = pooling_wire.encode_forward_response(ForwardResult(output, indices))
    theirs = pb.ForwardResponse(
        output=pb.Tensor(
            element_type=pb.ELEMENT_TYPE_FLOAT32, shape=output.shape, data=output.tobytes()
        ),
        indices=pb.Tensor(
            element_type=pb.ELEMENT_TYPE_UINT8, shape=indices.shape, data=indices.tobytes()
        ),
    )
    assert ours == theirs.SerializeToString(deterministic=True)


def large(count: int, dtype: str = "f4") -> np.ndarray:
    return (np.arange(count) % 251).astype(dtype).reshape(1, 1, count)


# Around the size from which on payloads are aligned, and where a length takes one more byte.
LARGE_COUNTS = [
    *range(ALIGNED_BYTES // 4 - 9, ALIGNED_BYTES // 4 + 9),
    *range((1 << 19) - 20, (1 << 19) + 2),
]


@pytest.mark.parametrize("count", LARGE_COUNTS)
def test_large_payloads_begin_at_multiples_of_16(count: int) -> None:
    call = pooling_wire.ForwardCall(large(count), PoolSpec("max", 2))
    item = pooling_wire.encode_forward_item(count, call)
    for data in (pooling_wire.encode_forward_request(call), item):
        message = pb.ForwardStreamRequest.FromString(item).request
        if data is not item:
            message = pb.ForwardRequest.FromString(data)
        assert message.input.data == large(count).tobytes()
        at = data.index(large(count).tobytes())
        is_between = abs(len(data) - (1 << 21)) < 64  # a length may have grown
        assert call.input.nbytes < ALIGNED_BYTES or is_between or at % 16 == 0


@pytest.mark.parametrize("types", [("f4", "i8"), ("f8", "u2"), ("i2", "u1"), ("f2", "u4")])
def test_every_large_payload_of_a_message_is_aligned(types: tuple[str, str]) -> None:
    output, indices = (large(200_001, dtype) for dtype in types)
    data = pooling_wire.encode_forward_item_reply(7, ForwardResult(output, indices))
    assert data.index(output.tobytes()) % 16 == data.index(indices.tobytes()) % 16 == 0
    id_, result = pooling_wire.decode_forward_item_reply(data)
    assert (id_, isinstance(result, ForwardResult)) == (7, True)
    for ours, theirs in ((result.output, output), (result.indices, indices)):
        np.testing.assert_array_equal(ours, theirs, strict=True)
        assert ours.flags.aligned


def test_with_its_filler_a_large_message_is_that_of_the_generated_classes() -> None:
    data = pooling_wire.encode_backward_response(large(100_000))
    message = pb.BackwardResponse.FromString(data)
    assert message.input_gradient.filler == bytes(len(message.input_gradient.filler))
    assert data == message.SerializeToString(deterministic=True)
    message.input_gradient.ClearField("filler")
    without = message.SerializeToString(deterministic=True)
    np.testing.assert_array_equal(pooling_wire.decode_backward_response(without), large(100_000))


X, Y = np.ones((1, 2, 4, 4), np.float32), np.ones((1, 2, 2, 2), np.float32)
TAPS = np.zeros((1, 2, 2, 2), np.uint8)
SPEC = PoolSpec("max", 2)
CALLS: dict[str, tuple[Any, Any, Any]] = {
    "forward": (
        pooling_wire.ForwardCall(X, SPEC),
        pooling_wire.encode_forward_request,
        pooling_wire.decode_forward_request,
    ),
    "forward with indices": (
        pooling_wire.ForwardCall(X, SPEC, True, IndexFormat.PLANE),
        pooling_wire.encode_forward_request,
        pooling_wire.decode_forward_request,
    ),
    "backward with indices": (
        pooling_wire.BackwardCall(Y, SPEC, X.shape, TAPS, None, IndexFormat.WINDOW),
        pooling_wire.encode_backward_request,
        pooling_wire.decode_backward_request,
    ),
    "backward with input": (
        pooling_wire.BackwardCall(Y, SPEC, None, None, X),
        pooling_wire.encode_backward_request,
        pooling_wire.decode_backward_request,
    ),
    "result": (
        ForwardResult(Y, None),
        pooling_wire.encode_forward_response,
        pooling_wire.decode_forward_response,
    ),
    "result with indices": (
        ForwardResult(Y, TAPS),
        pooling_wire.encode_forward_response,
        pooling_wire.decode_forward_response,
    ),
    "gradient": (X, pooling_wire.encode_backward_response, pooling_wire.decode_backward_response),
    "info": (
        pooling_wire.ServerInfo(
            "1.2",
            (
                pooling_wire.BackendInfo(
                    "numpy",
                    ("CPU",),
                    tuple(pooling_engine.Mode),
                    (np.dtype("<f4"), np.dtype("<f2")),
                    (IndexFormat.WINDOW,),
                ),
            ),
            pooling_wire.Limits(1, 2, 3, 4),
        ),
        pooling_wire.encode_server_info,
        pooling_wire.decode_server_info,
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_and_results_there_and_back(name: str) -> None:
    value, encode, decode = CALLS[name]
    data = encode(value)
    assert isinstance(data, bytes)
    again = decode(data)
    assert encode(again) == data
    assert_same(again, value)


def test_what_a_newer_server_has_is_left_out_of_its_description() -> None:
    backend = pb.Backend(
        modes=[pb.MODE_MAX, 99], element_types=[99, pb.ELEMENT_TYPE_INT8], index_formats=[99]
    )
    data = pb.GetServerInfoResponse(backends=[backend]).SerializeToString()
    (known,) = pooling_wire.decode_server_info(data).backends
    assert known.modes == (pooling_engine.Mode.MAX,)
    assert known.dtypes == (np.dtype("int8"),)
    assert known.index_formats == ()


def assert_same(a: Any, b: Any) -> None:
    """Equal, field by field, where a field may be an array or a spec given in another way."""
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        np.testing.assert_array_equal(a, b, strict=True)
    elif isinstance(a, PoolSpec):
        assert encode_spec(a, 2) == encode_spec(b, 2)
    elif dataclasses.is_dataclass(a):
        for field in dataclasses.fields(a):
            assert_same(getattr(a, field.name), getattr(b, field.name))
    elif isinstance(a, tuple):
        for item, other in zip(a, b, strict=True):
            assert_same(item, other)
    else:
        assert a == b


def test_every_message_is_covered() -> None:
    """A message type that nothing encodes is one that somebody forgot."""
    methods = pb.DESCRIPTOR.services_by_name["PoolingService"].methods
    spoken = {method.name for method in methods} - {"GetServerInfo", "GetPlan"}
    assert spoken == {"Forward", "Backward", "ForwardStream", "BackwardStream"}
    for name in spoken:
        stream = name.endswith("Stream")
        name = name.removesuffix("Stream").lower()
        for side in ("item", "item_reply") if stream else ("request", "response"):
            assert hasattr(pooling_wire, f"encode_{name}_{side}")
            assert hasattr(pooling_wire, f"decode_{name}_{side}")


def test_a_missing_enum_entry_fails_at_import() -> None:
    with pytest.raises(AssertionError, match="Mode names differ"):
        enums.EnumTable({pooling_engine.Mode.MAX: 1}, pooling_engine.Mode, pb.Mode)
    numbers = dict(zip(pooling_engine.Mode, (1, 2, 3, 4, 9), strict=True))
    with pytest.raises(AssertionError, match="Mode numbers differ"):
        enums.EnumTable(numbers, pooling_engine.Mode, pb.Mode)


ERRORS = [getattr(pooling_engine, name) for name in pooling_engine.__all__ if "Error" in name]


class FakeRpcError(grpc.RpcError):
    """What the client sees of a status."""

    def __init__(self, code: grpc.StatusCode, text: str, details: bytes | None = None) -> None:
        self._answers = (code, text, details)

    def code(self) -> grpc.StatusCode:
        return self._answers[0]

    def details(self) -> str:
        return self._answers[1]

    def trailing_metadata(self) -> Any:
        details = self._answers[2]
        return () if details is None else ((pooling_wire.DETAILS_KEY, details),)


@pytest.mark.parametrize("class_", [error for error in ERRORS if error is not PoolingError])
def test_every_error_there_and_back(class_: type[PoolingError]) -> None:
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
def test_fields_become_paths_of_the_request(field: str, path: str) -> None:
    assert status.field_path(field) == path
    name = path.partition("[")[0].rpartition(".")[2]
    assert not path or name in {
        field.name
        for message in pb.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
    }
