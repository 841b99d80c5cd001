"""Tensors in messages: element types, shapes and byte order."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from pooling_engine import ForwardResult, TensorTooLargeError
from pooling_wire import BACKWARD, FORWARD, METHODS, enums
from pooling_wire.payloads.tensors import decode_tensor, field_start, message_parts
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


@pytest.mark.parametrize("shape", [(0, 2**31, 2**31), (2**62, 0, 2**62), (0, 2**63 - 1)])
def test_an_empty_tensor_that_is_absurdly_large_along_other_axes(shape: tuple[int, ...]) -> None:
    message = pb.Tensor(element_type=pb.ELEMENT_TYPE_FLOAT64, shape=shape)
    with pytest.raises(TensorTooLargeError, match=r"x\.shape is .* may not exceed 2\^60 - 1"):
        decode_tensor(message, "x")


@pytest.mark.parametrize("size", [0, 1, 31, 32, 127, 128, 4000, 32_000, 600_001])
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


def test_an_unknown_field_beside_the_payload_is_ignored() -> None:
    """Earlier versions sent a field `filler` with number 14."""
    array = np.arange(100_000, dtype=np.float32)
    data = BACKWARD.encode_response(array)
    tensor = pb.BackwardResponse.FromString(data).input_gradient.SerializeToString()
    filled = field(14, bytes(3)) + tensor
    for message in (field(15, filled), field(15, filled[:-1] + b"\x07")):
        expected = np.frombuffer(message[-array.nbytes :], np.float32)
        np.testing.assert_array_equal(BACKWARD.decode_response(message), expected)


def field(number: int, content: bytes) -> bytes:
    return field_start(number, len(content)) + content
