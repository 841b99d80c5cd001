"""Items of streams: calls and results under their ids, and refusals in their place."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import DecodeError

import pooling_engine
import pooling_wire
from pooling_engine import PoolingError
from pooling_wire.v1 import pooling_pb2 as pb
from tests.wire.test_wire import CALLS, ERRORS, assert_same

ITEMS: dict[str, tuple[str, Any, Any, Any, Any]] = {
    "forward": (
        "forward with indices",
        pooling_wire.encode_forward_item,
        pooling_wire.decode_forward_item,
        pb.ForwardStreamRequest,
        "request",
    ),
    "backward": (
        "backward with indices",
        pooling_wire.encode_backward_item,
        pooling_wire.decode_backward_item,
        pb.BackwardStreamRequest,
        "request",
    ),
    "forward reply": (
        "result with indices",
        pooling_wire.encode_forward_item_reply,
        pooling_wire.decode_forward_item_reply,
        pb.ForwardStreamResponse,
        "response",
    ),
    "backward reply": (
        "gradient",
        pooling_wire.encode_backward_item_reply,
        pooling_wire.decode_backward_item_reply,
        pb.BackwardStreamResponse,
        "response",
    ),
}
REPLIES = [name for name in ITEMS if "reply" in name]
REQUESTS = [name for name in ITEMS if "reply" not in name]


@pytest.mark.parametrize("id_", [0, 1, -1, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("name", ITEMS)
def test_items_there_and_back(name: str, id_: int) -> None:
    what, encode, decode, type_, field = ITEMS[name]
    value, encode_alone, _ = CALLS[what]
    data = encode(id_, value)
    alone = getattr(type_(), field).FromString(encode_alone(value))
    theirs = type_(id=id_, **{field: alone})
    assert data == theirs.SerializeToString(deterministic=True)
    again_id, again = decode(data)
    assert again_id == id_
    assert_same(again, value)


@pytest.mark.parametrize("name", REPLIES)
@pytest.mark.parametrize("class_", [error for error in ERRORS if error is not PoolingError])
def test_every_refusal_there_and_back(class_: type[PoolingError], name: str) -> None:
    _, encode, decode, type_, _ = ITEMS[name]
    error = class_("what was sent", field="stride[1]", facts={"retry_after_s": "0.25"})
    data = encode(7, error)
    message = type_.FromString(data).error
    status = pooling_wire.encode_error(error)
    assert (message.code, message.reason) == (status.code.value[0], class_.reason)
    assert message.field == "spec.sliding_windows.axes[1].stride"
    id_, again = decode(data)
    assert (id_, type(again)) == (7, class_)
    assert (str(again), again.field, again.facts) == (str(error), error.field, error.facts)


@pytest.mark.parametrize("name", REPLIES)
def test_a_reason_of_a_newer_server_is_an_internal_error(name: str) -> None:
    _, _, decode, type_, _ = ITEMS[name]
    message = type_(id=7, error=pb.StreamError(message="its text", reason="NEW"))
    id_, error = decode(message.SerializeToString())
    assert (id_, type(error), str(error)) == (7, pooling_engine.InternalError, "its text")


@pytest.mark.parametrize("name", REPLIES)
@pytest.mark.parametrize("data", [b"", b"\x08\x07", b"\xff"])
def test_replies_of_nothing_are_refused(name: str, data: bytes) -> None:
    with pytest.raises(pooling_engine.InvalidTensorError):
        ITEMS[name][2](data)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_refused_item_keeps_its_id(name: str) -> None:
    _, _, decode, type_, field = ITEMS[name]
    without_request = type_(id=7)
    empty = type_(id=7, **{field: {}})
    assert_refused(decode(without_request.SerializeToString()), 7, "request")
    assert_refused(decode(empty.SerializeToString()), 7, None)


BROKEN = {
    "nothing legible": (0, b"\xff"),
    "an end of a group": (0, b"\x0f"),
    "no request": (7, b"\x08\x07\x7a\x7f"),
    "negative": (-2, b"\x08" + b"\xfe" + b"\xff" * 8 + b"\x01\x7a\x7f"),
    "a broken request": (7, b"\x08\x07\x7a\x01\xff"),
    "after a broken request": (7, b"\x7a\x01\xff\x08\x07"),
    "twice": (7, b"\x08\x05\x7a\x01\xff\x08\x07"),
    "cut": (0, b"\x08\x87"),
    "of another type": (0, b"\x0a\x01\x07\x7a\x01\xff"),
}


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("case", BROKEN)
def test_an_item_that_does_not_parse_keeps_what_can_be_read_of_its_id(name: str, case: str) -> None:
    id_, data = BROKEN[case]
    with pytest.raises(DecodeError):
        ITEMS[name][3].FromString(data)
    assert_refused(ITEMS[name][2](data), id_, "")


def assert_refused(item: tuple[int, Any], id_: int, field: str | None) -> None:
    assert item[0] == id_
    assert isinstance(item[1], PoolingError)
    assert field is None or item[1].field == field
