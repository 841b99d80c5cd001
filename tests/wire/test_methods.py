"""Requests, responses, stream items and replies of every method, encoded and decoded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.message import DecodeError

import pooling_wire
from pooling_engine import (
    ForwardAllCall,
    InternalError,
    InvalidTensorError,
    PoolingError,
    UnsupportedError,
)
from pooling_wire import METHODS, PLAIN_METHODS, Method
from pooling_wire.shared_memory import Place
from pooling_wire.v1 import pooling_pb2 as pb
from tests.wire.support import CONCRETE_ERRORS, MESSAGES, SAMPLES, assert_same

SERVICE = pb.DESCRIPTOR.services_by_name["PoolingService"]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


def test_every_rpc_has_a_row_or_is_a_plain_method() -> None:
    rows = [name for method in METHODS for name in (method.name, method.stream_name)]
    assert sorted(rows + list(PLAIN_METHODS)) == sorted(rpc.name for rpc in SERVICE.methods)


@every_method
def test_rows_have_the_messages_of_the_contract(method: Method[Any, Any]) -> None:
    unary = SERVICE.methods_by_name[method.name]
    assert unary.input_type is method.request.type.DESCRIPTOR
    assert unary.output_type is method.response.type.DESCRIPTOR
    stream = SERVICE.methods_by_name[method.stream_name]
    assert stream.input_type is method.item.DESCRIPTOR
    assert stream.output_type is method.reply.DESCRIPTOR
    assert method.path == f"/{SERVICE.full_name}/{method.name}"
    assert method.stream_path == f"/{SERVICE.full_name}/{method.name}Stream"


@every_method
def test_every_method_has_samples(method: Method[Any, Any]) -> None:
    """Without them, the round trips below would leave out its codecs."""
    assert SAMPLES[method.name].calls
    assert SAMPLES[method.name].results


@pytest.mark.parametrize("name", MESSAGES)
def test_round_trip(name: str) -> None:
    message = MESSAGES[name]
    assert isinstance(message.data, bytes)
    again = message.decode(message.data)
    assert_same(again, message.value)
    assert message.encode(again) == message.data


@pytest.mark.parametrize("id_", [0, 1, -1, 2**63 - 1, -(2**63)])
@every_method
def test_stream_messages_are_those_of_the_generated_classes(
    method: Method[Any, Any], id_: int
) -> None:
    samples = SAMPLES[method.name]
    for call in samples.calls.values():
        request = method.request.type.FromString(method.encode_request(call))
        data = method.encode_item(id_, call)
        assert data == method.item(id=id_, request=request).SerializeToString(deterministic=True)
        assert method.decode_item(data)[0] == id_
    for result in samples.results.values():
        response = method.response.type.FromString(method.encode_response(result))
        data = method.encode_reply(id_, result)
        assert data == method.reply(id=id_, response=response).SerializeToString(deterministic=True)
        assert method.decode_reply(data)[0] == id_


@pytest.mark.parametrize("timeout_us", [0, 1, 127, 128, 30_000_000, 2**63, 2**64 - 1])
@pytest.mark.parametrize("id_", [0, 1, -1])
@every_method
def test_items_carry_a_timeout(method: Method[Any, Any], id_: int, timeout_us: int) -> None:
    for call in SAMPLES[method.name].calls.values():
        request = method.request.type.FromString(method.encode_request(call))
        message = method.item(id=id_, timeout_us=timeout_us, request=request)
        data = method.encode_item(id_, call, timeout_us)
        assert data == message.SerializeToString(deterministic=True)
        for _ in range(2):  # parsed, and from the cache of headers
            item = method.decode_item(data)
            assert (item.id, item.timeout_us) == (id_, timeout_us)
            assert isinstance(item.call, type(call))
    without_request = method.item(id=id_, timeout_us=timeout_us).SerializeToString()
    assert method.decode_item(without_request).timeout_us == timeout_us


@every_method
@pytest.mark.parametrize("class_", CONCRETE_ERRORS)
def test_errors_in_replies_round_trip(class_: type[PoolingError], method: Method[Any, Any]) -> None:
    error = class_("what was sent", field="stride[1]", facts={"retry_after_s": "0.25"})
    data = method.encode_reply(7, error)
    message = method.reply.FromString(data).error
    status = pooling_wire.encode_error(error)
    assert (message.code, message.reason) == (status.code.value[0], class_.reason)
    assert message.field == "spec.sliding_windows.axes[1].stride"
    id_, again = method.decode_reply(data)
    assert (id_, type(again)) == (7, class_)
    assert (str(again), again.field, again.facts) == (str(error), error.field, error.facts)


@every_method
def test_an_unknown_reason_in_a_reply_is_an_internal_error(method: Method[Any, Any]) -> None:
    message = method.reply(id=7, error=pb.StreamError(message="its text", reason="NEW"))
    id_, error = method.decode_reply(message.SerializeToString())
    assert (id_, type(error), str(error)) == (7, InternalError, "its text")


@every_method
@pytest.mark.parametrize("data", [b"", b"\x08\x07", b"\xff"])
def test_replies_without_a_result_are_rejected(method: Method[Any, Any], data: bytes) -> None:
    with pytest.raises(InvalidTensorError):
        method.decode_reply(data)


@every_method
def test_a_rejected_item_keeps_its_id(method: Method[Any, Any]) -> None:
    without_request = method.item(id=7)
    empty = method.item(id=7, request={})
    assert_rejected(method.decode_item(without_request.SerializeToString()), 7, "request")
    assert_rejected(method.decode_item(empty.SerializeToString()), 7, None)


@every_method
def test_items_with_a_place_for_a_result_are_rejected(method: Method[Any, Any]) -> None:
    for call in SAMPLES[method.name].calls.values():
        (result, *_) = call.result_specs
        data = method.encode_request(call, {result: Place(b"handle", 0)})
        request = method.request.type.FromString(data)
        item = method.item(id=7, request=request).SerializeToString()
        assert_rejected(method.decode_item(item), 7, f"{result}_place")
        assert isinstance(method.decode_item(item)[1], UnsupportedError)


@every_method
def test_items_and_replies_carry_places(method: Method[Any, Any]) -> None:
    """The item contains the request with its places; the reply does not contain the results."""
    memory = memoryview(bytearray(1 << 16))
    regions = SimpleNamespace(find=lambda handle: memory)
    for name, call in SAMPLES[method.name].calls.items():
        if isinstance(call, ForwardAllCall):  # rejects places
            continue
        result = next(iter(call.result_specs))
        place = Place(b"handle", 64)
        item = method.item_of(7, method.encode_request(call, {result: place}), 9)
        id_, again, timeout_us, places = method.decode_item(item, regions)
        assert (id_, timeout_us, dict(places)) == (7, 9, {result: place}), name
        assert type(again) is type(call), name


BROKEN = {
    "no legible byte": (0, b"\xff"),
    "end of a group": (0, b"\x0f"),
    "cut request": (7, b"\x08\x07\x7a\x7f"),
    "negative id": (-2, b"\x08" + b"\xfe" + b"\xff" * 8 + b"\x01\x7a\x7f"),
    "broken request": (7, b"\x08\x07\x7a\x01\xff"),
    "id after a broken request": (7, b"\x7a\x01\xff\x08\x07"),
    "two ids": (7, b"\x08\x05\x7a\x01\xff\x08\x07"),
    "cut id": (0, b"\x08\x87"),
    "id of another type": (0, b"\x0a\x01\x07\x7a\x01\xff"),
}


@every_method
@pytest.mark.parametrize("case", BROKEN)
def test_a_malformed_item_keeps_its_id_if_it_can_be_read(
    method: Method[Any, Any], case: str
) -> None:
    id_, data = BROKEN[case]
    with pytest.raises(DecodeError):
        method.item.FromString(data)
    assert_rejected(method.decode_item(data), id_, "")


def assert_rejected(item: tuple[Any, ...], id_: int, field: str | None) -> None:
    assert item[0] == id_
    assert isinstance(item[1], PoolingError)
    assert field is None or item[1].field == field
