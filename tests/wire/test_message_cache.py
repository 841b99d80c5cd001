"""The message cache: a message that is rebuilt from a cached header equals the parsed one."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from pooling_engine import BackwardCall, ForwardCall, PoolingError, PoolSpec
from pooling_wire import BACKWARD, FORWARD, METHODS
from pooling_wire.messages import codec, stream_items
from pooling_wire.payloads import message_cache
from pooling_wire.shared_memory import Place
from pooling_wire.v1 import pooling_pb2 as pb
from tests.wire.support import MESSAGES, argument_names

CACHES = [codec.cache for method in METHODS for codec in (method.request, method.response)]
Decode = Callable[[bytes], Any]


@pytest.fixture(autouse=True)
def _empty_caches() -> Iterator[None]:
    clear()
    yield
    clear()


def clear() -> None:
    for cache in CACHES:
        cache.clear()


def cached() -> int:
    """The number of cached headers."""
    return sum(map(len, CACHES))


def described(decode: Decode, data: bytes) -> str:
    """A description of the decoded message, or of the error that it causes."""
    try:
        return description(decode(data))
    except PoolingError as error:
        return description(error)


def description(value: Any) -> str:
    if isinstance(value, PoolingError):
        return f"{type(value).__name__} of {value.field}: {value}"
    if isinstance(value, np.ndarray):
        assert not value.flags.writeable
        return f"{value.dtype} {value.shape} {value.tobytes()!r}"
    if isinstance(value, tuple):
        return str([description(each) for each in value])
    if isinstance(value, ForwardCall | BackwardCall):
        return str({name: description(getattr(value, name)) for name in argument_names(value)})
    return repr(value)


@pytest.mark.parametrize("name", MESSAGES)
def test_damaged_messages_decode_the_same_with_and_without_the_cache(name: str) -> None:
    """Each bit changed and each byte left out."""
    data, decode = MESSAGES[name].data, MESSAGES[name].decode
    described(decode, data)
    assert cached() == 1
    variants = [data[:at] + data[at + 1 :] for at in range(len(data))]
    variants += [
        data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
        for at in range(len(data))
        for bit in range(8)
    ]
    expected = []
    for variant in (data, *variants):
        clear()
        expected.append(described(decode, variant))
    clear()
    assert described(decode, data) == expected[0]
    for variant, each in zip(variants, expected[1:], strict=True):
        assert described(decode, variant) == each
        assert described(decode, data) == expected[0]


@pytest.mark.parametrize("name", MESSAGES)
def test_a_repeated_message_is_not_parsed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, decode = MESSAGES[name].data, MESSAGES[name].decode
    first = described(decode, data)

    def fail(*_: Any) -> None:
        raise AssertionError("parsed again")

    monkeypatch.setattr(codec, "parse", fail)
    monkeypatch.setattr(stream_items, "parse", fail)
    assert described(decode, data) == first


def request_of(*shape: int, stride: int = 1) -> bytes:
    return FORWARD.encode_request(
        ForwardCall(np.zeros(shape, np.uint8), PoolSpec("max", 1, stride))
    )


def test_the_number_of_cached_headers_is_bounded() -> None:
    for size in range(1, 3 * message_cache.MAX_SIZES):
        FORWARD.decode_request(request_of(1, 1, size))
        assert cached() <= message_cache.MAX_SIZES
    clear()
    for stride in range(1, 3 * message_cache.MAX_HEADERS_PER_SIZE):
        FORWARD.decode_request(request_of(1, 1, 9, stride=stride))
    assert cached() == message_cache.MAX_HEADERS_PER_SIZE


def test_long_headers_are_not_cached() -> None:
    unknown_field = b"\xfa\x3e" + b"\xff\x7f" + bytes(0x3FFF)  # field 1007, of 16,383 bytes
    data = request_of(1, 1, 9) + unknown_field
    assert FORWARD.decode_request(data).call.input.shape == (1, 1, 9)
    assert cached() == 0


def both_residuals() -> bytes:
    """A request with indices and then the input, of which only the last counts."""
    ones = np.ones((1, 1, 4), np.uint8)
    head = pb.BackwardRequest(input_shape=ones.shape)
    head.MergeFrom(
        pb.BackwardRequest.FromString(
            BACKWARD.encode_request(
                BackwardCall(
                    np.ones((1, 1, 4), np.float32), PoolSpec("max", 1), None, None, floats()
                )
            )
        )
    )
    head.ClearField("input")
    with_indices = pb.BackwardRequest(indices=tensor_of(ones, pb.ELEMENT_TYPE_UINT8))
    with_input = pb.BackwardRequest(input=tensor_of(floats(), pb.ELEMENT_TYPE_FLOAT32))
    return b"".join(part.SerializeToString() for part in (head, with_indices, with_input))


def floats() -> np.ndarray:
    return np.ones((1, 1, 4), np.float32)


def tensor_of(array: np.ndarray, element_type: Any) -> pb.Tensor:
    return pb.Tensor(element_type=element_type, shape=array.shape, data=array.tobytes())


NOT_CACHED = {
    "no elements": (request_of(0, 1, 9), FORWARD.decode_request),
    "two residuals": (both_residuals(), BACKWARD.decode_request),
    "location of the output": (
        FORWARD.encode_request(
            ForwardCall(np.ones((1, 1, 9), np.uint8), PoolSpec("max", 1)),
            {"output": Place(b"handle", 64)},
        ),
        FORWARD.decode_request,
    ),
}


@pytest.mark.parametrize("name", NOT_CACHED)
def test_messages_that_are_never_cached(name: str) -> None:
    data, decode = NOT_CACHED[name]
    first = description(decode(data))
    assert cached() == 0
    assert description(decode(data)) == first


def test_the_cache_keeps_no_message_alive() -> None:
    data = bytearray(request_of(1, 1, 9))
    view = memoryview(data)
    alive = weakref.ref(view)
    FORWARD.decode_request(view)
    del view
    assert cached() == 1
    assert alive() is None
