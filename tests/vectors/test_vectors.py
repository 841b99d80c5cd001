"""The vectors: committed files are current, and the server answers each one exactly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from pooling_server import PoolingServer
from pooling_wire.v1 import pooling_pb2_grpc
from tests.vectors.generate import FOLDER, files, text_of
from tests.vectors.replay import (
    LIMIT_S,
    assert_reply,
    assert_stream,
    error_of,
    load,
    names,
    request_of,
    stream_items,
)


def test_the_committed_files_are_those_of_the_generator() -> None:
    generated = dict(files())
    assert sorted(generated) == names()
    for name, vectors in generated.items():
        assert (FOLDER / f"{name}.json").read_text() == text_of(vectors), name


def test_names_are_unique_within_a_file() -> None:
    for name in names():
        labels = [(vector["method"], vector["name"]) for vector in load(name)]
        assert len(set(labels)) == len(labels)


@pytest.fixture
def stub(server: PoolingServer) -> Iterator[pooling_pb2_grpc.PoolingServiceStub]:
    """Return a plain stub that accepts replies over gRPC's default limit."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.address, options) as channel:
        yield pooling_pb2_grpc.PoolingServiceStub(channel)


@pytest.mark.parametrize("name", names())
def test_the_server_answers_exactly(stub: Any, name: str) -> None:
    for vector in load(name):
        method = getattr(stub, vector["method"])
        if "requests" in vector:
            replies = list(method(iter(stream_items(vector)), timeout=LIMIT_S))
            assert_stream(replies, vector["replies"])
        elif "error" in vector:
            with pytest.raises(grpc.RpcError) as raised:
                method(request_of(vector), timeout=LIMIT_S)
            assert error_of(raised.value) == vector["error"], vector["name"]
        else:
            reply = method(request_of(vector), timeout=LIMIT_S)
            try:
                assert_reply(reply, vector["reply"])
            except AssertionError as error:
                error.add_note(f"{vector['method']}: {vector['name']}")
                raise
