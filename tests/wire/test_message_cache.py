"""A message that is decoded as one before was, says what it would say if it were the first."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import pooling_wire
from pooling_engine import PoolingError, PoolSpec
from pooling_wire import Place
from pooling_wire.messages import decoding
from pooling_wire.messages import stream_items as items
from pooling_wire.payloads import message_cache
from pooling_wire.v1 import pooling_pb2 as pb
from tests.wire.test_items import ITEMS
from tests.wire.test_wire import CALLS

CACHES = (
    decoding.FORWARD_CALLS,
    decoding.BACKWARD_CALLS,
    decoding.FORWARD_RESULTS,
    decoding.GRADIENTS,
)
Decode = Callable[[bytes], Any]
REAL: dict[str, tuple[bytes, Decode]] = {
    **{
        f"{name} item": (encode(7, CALLS[what][0]), decode)
        for name, (what, encode, decode, *_) in ITEMS.items()
    },
    **{
        name: (encode(value), decode)
        for name, (value, encode, decode) in CALLS.items()
        if name != "info"
    },
}


@pytest.fixture(autouse=True)
def _nothing_is_known() -> Iterator[None]:
    forget()
    yield
    forget()


def forget() -> None:
    for each in CACHES:
        each.clear()


def known() -> int:
    return sum(map(len, CACHES))


def said(decode: Decode, data: bytes) -> str:
    """What a message says, or why it says nothing."""
    try:
        return said_by(decode(data))
    except PoolingError as error:
        return said_by(error)


def said_by(value: Any) -> str:
    if isinstance(value, PoolingError):
        return f"{type(value).__name__} of {value.field}: {value}"
    if isinstance(value, np.ndarray):
        assert not value.flags.writeable
        return f"{value.dtype} {value.shape} {value.tobytes()!r}"
    if isinstance(value, tuple):
        return str([said_by(each) for each in value])
    if hasattr(value, "__slots__") and not isinstance(value, PoolSpec):
        return str({name: said_by(getattr(value, name)) for name in value.__slots__})
    return repr(value)


@pytest.mark.parametrize("name", REAL)
def test_what_is_known_changes_nothing(name: str) -> None:
    """Any bit changed, any byte left out: with the message known before, and without."""
    data, decode = REAL[name]
    said(decode, data)
    assert known() == 1
    variants = [data[:at] + data[at + 1 :] for at in range(len(data))]
    variants += [
        data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
        for at in range(len(data))
        for bit in range(8)
    ]
    expected = []
    for variant in (data, *variants):
        forget()
        expected.append(said(decode, variant))
    forget()
    assert said(decode, data) == expected[0]
    for variant, each in zip(variants, expected[1:], strict=True):
        assert said(decode, variant) == each
        assert said(decode, data) == expected[0]


@pytest.mark.parametrize("name", REAL)
def test_the_second_is_not_parsed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, decode = REAL[name]
    first = said(decode, data)

    def refuse(*_: Any) -> None:
        raise AssertionError("parsed again")

    monkeypatch.setattr(decoding, "parse", refuse)
    monkeypatch.setattr(items, "parse", refuse)
    assert said(decode, data) == first


def request_of(*shape: int, stride: int = 1) -> bytes:
    x = np.zeros(shape, np.uint8)
    call = pooling_wire.ForwardCall(x, PoolSpec("max", 1, stride))
    return pooling_wire.encode_forward_request(call)


def test_what_is_kept_is_bounded() -> None:
    for size in range(1, 3 * message_cache.MAX_SIZES):
        pooling_wire.decode_forward_request(request_of(1, 1, size))
        assert known() <= message_cache.MAX_SIZES
    forget()
    for stride in range(1, 3 * message_cache.MAX_HEADERS_PER_SIZE):
        pooling_wire.decode_forward_request(request_of(1, 1, 9, stride=stride))
    assert known() == message_cache.MAX_HEADERS_PER_SIZE


def test_long_messages_without_elements_are_not_kept() -> None:
    unknown_field = b"\xfa\x3e" + b"\xff\x7f" + bytes(0x3FFF)  # field 1007, of 16,383 bytes
    data = request_of(1, 1, 9) + unknown_field
    assert pooling_wire.decode_forward_request(data).input.shape == (1, 1, 9)
    assert known() == 0


def both_residuals() -> bytes:
    """Of indices and input, the last counts."""
    sent = pooling_wire.BackwardCall(np.ones((1, 1, 4), np.uint8), PoolSpec("max", 1))
    with_indices = pb.BackwardRequest(indices=tensor_of(b"abcd")).SerializeToString()
    with_input = pb.BackwardRequest(input=tensor_of(b"efgh")).SerializeToString()
    return pooling_wire.encode_backward_request(sent) + with_indices + with_input


def tensor_of(data: bytes) -> pb.Tensor:
    return pb.Tensor(element_type=pb.ELEMENT_TYPE_UINT8, shape=[1, 1, len(data)], data=data)


UNLIKE = {
    "no elements": (request_of(0, 1, 9), pooling_wire.decode_forward_request),
    "two residuals": (both_residuals(), pooling_wire.decode_backward_request),
    "a place for the output": (
        pooling_wire.encode_forward_request(
            pooling_wire.ForwardCall(
                np.ones((1, 1, 9), np.uint8),
                PoolSpec("max", 1),
                places={"output": Place(b"handle", 64)},
            )
        ),
        pooling_wire.decode_forward_request,
    ),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_what_others_cannot_be_like_is_not_kept(name: str) -> None:
    data, decode = UNLIKE[name]
    first = said(decode, data)
    assert known() == 0
    assert said(decode, data) == first
    assert not isinstance(decode(data), PoolingError)


def test_nothing_of_a_message_is_kept_alive() -> None:
    data = bytearray(request_of(1, 1, 9))
    view = memoryview(data)
    alive = weakref.ref(view)
    pooling_wire.decode_forward_request(view)
    del view
    assert known() == 1
    assert alive() is None
