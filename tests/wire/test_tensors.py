"""Tensors in messages: element types, shapes, byte order and alignment."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from pooling_engine import ForwardCall, ForwardResult, PoolSpec
from pooling_wire import BACKWARD, FORWARD, METHODS, enums
from pooling_wire.payloads.tensors import ALIGNED_BYTES, decode_tensor, message_parts
from pooling_wire.v1 import pooling_pb2 as pb


def carried(array: Any) -> pb.Tensor:
    """The tensor message that our encoder puts into a reply, as the generated classes read it."""
    data = b"".join(message_parts(pb.BackwardResponse, b"", {"input_gradient": array}))
    return pb.BackwardResponse.FromString(data).input_gradient


@pytest.mark.parametrize("dtype", pb.ElementType.keys()[1:])
@pytest.mark.parametrize("shape", [(2, 3, 4), (0, 3, 4), (1,), (), (40, 5, 11)])
def test_round_trip(dtype: str, shape: tuple[int, ...]) -> None:
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


def test_elements_are_little_endian() -> None:
    assert carried(np.array([1.0], ">f4")).data == b"\x00\x00\x80\x3f"


@pytest.mark.parametrize(
    "type_", [codec.type for method in METHODS for codec in (method.request, method.response)]
)
def test_tensors_have_the_highest_numbers_of_their_message(type_: Any) -> None:
    fields = sorted(type_.DESCRIPTOR.fields, key=lambda field: field.number)
    carries = [field.message_type is pb.Tensor.DESCRIPTOR for field in fields]
    assert carries == sorted(carries)
    assert fields[-1].number == pb.Tensor.DATA_FIELD_NUMBER == 15


@pytest.mark.parametrize("size", [0, 1, 31, 32, 127, 128, 4000, 32_000])
def test_the_bytes_are_those_of_the_generated_classes(size: int) -> None:
    output, indices = np.arange(size, dtype=np.float32), np.arange(size).astype(np.uint8)
    ours = FORWARD.encode_response(ForwardResult(output, indices))
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
    call = ForwardCall(large(count), PoolSpec("max", 2))
    item = FORWARD.encode_item(count, call)
    for data in (FORWARD.encode_request(call), item):
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
    data = FORWARD.encode_reply(7, ForwardResult(output, indices))
    assert data.index(output.tobytes()) % 16 == data.index(indices.tobytes()) % 16 == 0
    id_, result = FORWARD.decode_reply(data)
    assert id_ == 7
    assert isinstance(result, ForwardResult)
    for ours, theirs in ((result.output, output), (result.indices, indices)):
        np.testing.assert_array_equal(ours, theirs, strict=True)
        assert ours.flags.aligned


def test_with_its_filler_a_large_message_is_that_of_the_generated_classes() -> None:
    data = BACKWARD.encode_response(large(100_000))
    message = pb.BackwardResponse.FromString(data)
    assert message.input_gradient.filler == bytes(len(message.input_gradient.filler))
    assert data == message.SerializeToString(deterministic=True)
    message.input_gradient.ClearField("filler")
    without = message.SerializeToString(deterministic=True)
    np.testing.assert_array_equal(BACKWARD.decode_response(without), large(100_000))
