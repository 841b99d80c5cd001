"""The vectors over Connect, with JSON and with binary messages, and over gRPC-Web."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pooling_server import PoolingServer
from tests.http.support import PROTOCOLS, RejectedError, serving
from tests.vectors.replay import assert_reply, load, names, request_of

UNARY = [name for name in names() if name != "streams"]


@pytest.fixture(scope="module")
def server() -> Iterator[PoolingServer]:
    with serving() as server:
        yield server


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_replies_are_exactly_those_of_the_vectors(
    server: PoolingServer, protocol: str, name: str
) -> None:
    for vector in load(name):
        if "error" in vector:
            with pytest.raises(RejectedError) as caught:
                PROTOCOLS[protocol].call(server.http_address, request_of(vector))
            assert caught.value.record == vector["error"], vector["name"]
        else:
            reply = PROTOCOLS[protocol].call(server.http_address, request_of(vector))
            assert_reply(reply, vector["reply"])
