"""The vectors over gRPC in the Open Inference Protocol, in both ways to run handlers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from pooling_server import PoolingServer, ServerConfig
from pooling_server.oip.messages import message_class
from pooling_wire.v1 import pooling_pb2 as pb
from tests.oip.grpc_support import LIMIT_S, SERVICE, infer, message_of, outputs_of, record_of
from tests.oip.translation import Request, datatype, expected_bytes, translated
from tests.vectors.replay import load, names, request_of

NOT_EXPRESSIBLE = ("streams", "forward_all")
UNARY = [name for name in names() if name not in NOT_EXPRESSIBLE]


@pytest.fixture(scope="module", params=[True, False], ids=["polling thread", "threads"])
def channel(request: pytest.FixtureRequest) -> Iterator[grpc.Channel]:
    config = ServerConfig(
        listen="127.0.0.1:0", backend="numpy", warm_up=False, inline_calls=request.param
    )
    server = PoolingServer(config)
    server.start()
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.address, options) as channel:
        yield channel
    assert server.stop(), "calls were left in flight"


def expressible(name: str) -> list[tuple[dict[str, Any], Request]]:
    """Return the vectors of a file that the protocol can express, with their requests."""
    found = []
    for vector in load(name):
        if vector["method"] in ("Forward", "Backward"):
            request = translated(request_of(vector))
            if request is not None:
                found.append((vector, request))
    return found


@pytest.mark.parametrize("name", UNARY)
def test_replies_are_exactly_those_of_the_vectors(channel: grpc.Channel, name: str) -> None:
    cases = expressible(name)
    assert cases
    for vector, request in cases:
        message = message_of(request, vector["name"][:20])
        if "error" in vector:
            with pytest.raises(grpc.RpcError) as caught:
                infer(channel, message)
            error = record_of(caught.value)
            assert error["code"] == vector["error"]["code"], vector["name"]
            continue
        reply = infer(channel, message)
        assert reply.id == message.id
        assert_outputs(reply, vector["reply"], vector["name"])


def assert_outputs(reply: Any, expected: dict[str, Any], name: str) -> None:
    """Assert that a reply has exactly the expected tensors."""
    outputs = outputs_of(reply)
    names = {"inputGradient": "input_gradient"}
    assert outputs.keys() == {names.get(key, key) for key in expected}, name
    for key, record in expected.items():
        actual_type, shape, data = outputs[names.get(key, key)]
        assert actual_type == datatype(pb.ElementType.Value(record["elementType"]))
        assert shape == record["shape"]
        assert (data == expected_bytes(record)) is True, name


def test_a_stream_answers_every_item_in_order_and_reports_errors_in_band(
    channel: grpc.Channel,
) -> None:
    cases = [*expressible("forward_values")[:5], *expressible("errors")[:5]] * 2
    items = [message_of(request, str(n)) for n, (_, request) in enumerate(cases)]
    call = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")
    sent = (item.SerializeToString() for item in items)
    parse = message_class("ModelStreamInferResponse").FromString
    replies = [parse(reply) for reply in call(sent, timeout=LIMIT_S)]
    assert [reply.infer_response.id for reply in replies] == [item.id for item in items]
    for reply, (vector, _) in zip(replies, cases, strict=True):
        if "error" in vector:
            assert reply.error_message
        else:
            assert not reply.error_message
            assert_outputs(reply.infer_response, vector["reply"], vector["name"])
