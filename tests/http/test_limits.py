"""Clients that send too much, too slowly or not all, that disconnect, or that do not read."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

import pooling_engine
from pooling_server import PoolingServer
from pooling_wire.v1 import pooling_pb2 as pb
from tests.http.support import (
    PROTOCOLS,
    SERVICE,
    RejectedError,
    assert_serves,
    connection_to,
    read,
    send,
    serving,
)
from tests.server.support import Gate, wait_for_in_flight, wait_for_unfinished
from tests.support.requests import backward, forward, tensor

LIMIT = 1 << 20
PROTO = {"content-type": "application/proto"}
LARGE = (1, 1, 2048, 2048)  # a gradient of 16 MiB, more than the network buffers hold


@pytest.fixture(scope="module")
def server() -> Iterator[PoolingServer]:
    with serving(max_message_bytes=LIMIT, max_in_flight=2, threads=1) as server:
        yield server


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate()
    monkeypatch.setattr(pooling_engine, "run", gate)
    yield gate
    gate.open()


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> Any:
    return PROTOCOLS[request.param]


def filled(size: int) -> pb.ForwardRequest:
    """Return a request of that many bytes."""
    request = forward(input=tensor((1, 1, 4, 4), "uint8", data=b""))
    while (missing := size - request.ByteSize()) > 0:
        request.input.data += bytes(max(1, missing - 8))
    assert request.ByteSize() == size
    return request


@pytest.mark.parametrize("protocol", ["connect-proto", "grpc-web"])
def test_the_limit_of_a_message_is_exact(server: PoolingServer, protocol: str) -> None:
    for size, code in ((LIMIT, "INVALID_ARGUMENT"), (LIMIT + 1, "RESOURCE_EXHAUSTED")):
        with pytest.raises(RejectedError) as caught:
            PROTOCOLS[protocol].call(server.http_address, filled(size))
        assert caught.value.code == code, caught.value.text
    assert caught.value.details["ErrorInfo"].metadata["option"] == "--max-message-bytes"
    assert f"takes {LIMIT + 1} bytes" in caught.value.text


def test_a_large_body_is_rejected_before_it_arrives(server: PoolingServer, protocol: Any) -> None:
    connection = connection_to(server.http_address)
    connection.putrequest("POST", f"{SERVICE}/Forward")
    connection.putheader("content-type", protocol.content_type)
    connection.putheader("content-length", str(1 << 40))
    connection.endheaders()
    with pytest.raises(RejectedError) as caught:
        protocol.result(read(connection), pb.ForwardResponse)
    connection.close()
    assert caught.value.code == "RESOURCE_EXHAUSTED"
    assert caught.value.details["ErrorInfo"].reason == "TENSOR_TOO_LARGE"
    assert_serves(server)


def test_a_body_of_unknown_length_is_rejected_at_the_limit(server: PoolingServer) -> None:
    connection = connection_to(server.http_address)
    connection.request(
        "POST",
        f"{SERVICE}/Forward",
        (bytes(1 << 16) for _ in range(64)),
        PROTO,
        encode_chunked=True,
    )
    with pytest.raises(RejectedError) as caught:
        PROTOCOLS["connect-proto"].result(read(connection), pb.ForwardResponse)
    connection.close()
    assert caught.value.code == "RESOURCE_EXHAUSTED"
    wait_for_unfinished(server, 0)
    assert_serves(server)


def test_a_body_that_ends_early_leaves_nothing_behind(server: PoolingServer) -> None:
    connection = connection_to(server.http_address)
    connection.putrequest("POST", f"{SERVICE}/Forward")
    connection.putheader("content-type", "application/proto")
    connection.putheader("content-length", "1000")
    connection.endheaders(b"only a part")
    wait_for_in_flight(server, 1)
    connection.close()
    wait_for_unfinished(server, 0)
    assert_serves(server)


def test_overload_has_a_retry_delay(server: PoolingServer, gate: Gate, protocol: Any) -> None:
    callers = [
        threading.Thread(
            target=PROTOCOLS["connect-proto"].call, args=(server.http_address, forward())
        )
        for _ in range(2)
    ]
    for caller in callers:
        caller.start()
    wait_for_in_flight(server, 2)
    with pytest.raises(RejectedError) as caught:
        protocol.call(server.http_address, forward())
    assert caught.value.code == "RESOURCE_EXHAUSTED"
    assert caught.value.details["RetryInfo"].retry_delay.ToMilliseconds() == 100
    assert caught.value.trailers["x-request-id"]
    protocol.call(server.http_address, pb.GetServerInfoRequest())
    assert send(server.http_address, "/livez", method="GET").status == 200
    gate.open()
    for caller in callers:
        caller.join()


def test_calls_are_computed_in_the_threads_of_calls(
    server: PoolingServer, monkeypatch: pytest.MonkeyPatch, protocol: Any
) -> None:
    names, run = [], pooling_engine.run

    def recorded(*arguments: Any, **options: Any) -> Any:
        names.append(threading.current_thread().name)
        return run(*arguments, **options)

    monkeypatch.setattr(pooling_engine, "run", recorded)
    protocol.call(server.http_address, forward())
    assert len(names) == 1
    assert names[0].startswith("pooling-call")


def test_a_call_of_a_client_that_disconnects_is_not_computed(
    server: PoolingServer, gate: Gate
) -> None:
    first = threading.Thread(
        target=PROTOCOLS["connect-proto"].call, args=(server.http_address, forward())
    )
    first.start()
    gate.wait_entered()
    waiting = connection_to(server.http_address)
    waiting.request("POST", f"{SERVICE}/Forward", forward().SerializeToString(), PROTO)
    wait_for_in_flight(server, 2)
    waiting.close()
    wait_for_unfinished(server, 1)
    gate.open()
    first.join()
    wait_for_in_flight(server, 0)
    assert gate.computed == 1


def test_a_call_that_expires_in_the_queue_is_not_computed(
    server: PoolingServer, gate: Gate, protocol: Any
) -> None:
    first = threading.Thread(
        target=PROTOCOLS["connect-proto"].call, args=(server.http_address, forward())
    )
    first.start()
    gate.wait_entered()
    with pytest.raises(RejectedError) as caught:
        protocol.call(server.http_address, forward(), connect_timeout_ms="50", grpc_timeout="50m")
    assert caught.value.code == "DEADLINE_EXCEEDED"
    gate.open()
    first.join()
    wait_for_in_flight(server, 0)
    assert gate.computed == 1


@pytest.fixture(scope="module")
def limited() -> Iterator[PoolingServer]:
    with serving(http_timeout_s=0.3, threads=1, metrics_listen="127.0.0.1:0") as server:
        yield server


def test_a_call_that_names_no_deadline_has_that_of_the_server(
    limited: PoolingServer, gate: Gate, protocol: Any
) -> None:
    with pytest.raises(RejectedError) as caught:
        protocol.call(limited.http_address, forward())
    assert caught.value.code == "DEADLINE_EXCEEDED"
    assert caught.value.details["ErrorInfo"].metadata["option"] == "--http-timeout-s"
    gate.open()
    wait_for_unfinished(limited, 0)
    wait_for_in_flight(limited, 0)
    assert gate.computed == 1
    assert_serves(limited)


def test_a_request_names_a_shorter_deadline_than_the_server(
    limited: PoolingServer, gate: Gate, protocol: Any
) -> None:
    with pytest.raises(RejectedError) as caught:
        protocol.call(limited.http_address, forward(), connect_timeout_ms="50", grpc_timeout="50m")
    assert caught.value.code == "DEADLINE_EXCEEDED"
    assert "--http-timeout-s" not in caught.value.text
    gate.open()
    wait_for_in_flight(limited, 0)


def test_rest_has_the_deadline_of_the_server(limited: PoolingServer, gate: Gate) -> None:
    before = _ended(limited)
    x = {"name": "input", "datatype": "FP32", "shape": [1, 1, 2, 2], "data": [1, 2, 3, 4]}
    body = {"inputs": [x], "parameters": {"kernel": "2"}}
    reply = send(limited.http_address, "/v2/models/max_pool2d/infer", json.dumps(body))
    assert reply.status == 504
    assert "--http-timeout-s" in json.loads(reply.body)["error"]
    gate.open()
    wait_for_in_flight(limited, 0)
    assert _ended(limited) == before + 1  # the result that came later is not counted


def _ended(server: PoolingServer) -> float:
    """Return the number of calls that the metrics have counted."""
    return sum(sum(counts[:-1]) for counts in server.numbers().calls.values())


def test_the_budget_of_bytes_holds() -> None:
    with serving(max_in_flight_bytes=1 << 20) as server, pytest.raises(RejectedError) as caught:
        PROTOCOLS["grpc-web"].call(server.http_address, forward(input=tensor((1, 1, 512, 512))))
    assert caught.value.details["ErrorInfo"].metadata["option"] == "--max-in-flight-bytes"


@pytest.fixture(scope="module")
def hasty() -> Iterator[PoolingServer]:
    with serving(stream_idle_s=0.3) as server:
        yield server


def test_a_body_that_does_not_arrive_in_time_is_rejected(
    hasty: PoolingServer, protocol: Any
) -> None:
    with closing(connection_to(hasty.http_address)) as connection:
        connection.putrequest("POST", f"{SERVICE}/Forward")
        connection.putheader("content-type", protocol.content_type)
        connection.putheader("content-length", "1000")
        connection.endheaders(b"a")
        with pytest.raises(RejectedError) as caught:
            protocol.result(read(connection), pb.ForwardResponse)
        assert caught.value.code == "UNAVAILABLE"
        assert "--stream-idle-s" in caught.value.text
        wait_for_unfinished(hasty, 0)
        assert is_closed(connection.sock)  # the rest of the body is not awaited


@pytest.mark.parametrize("start", [b"", b"POST /x HTTP/1.1\r\nhost: "])
def test_a_connection_without_a_whole_request_is_closed(hasty: PoolingServer, start: bytes) -> None:
    host, port = hasty.http_address.split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(start)
        assert is_closed(client)
    assert_serves(hasty)


def is_closed(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_reply_that_is_not_read_is_given_up(hasty: PoolingServer) -> None:
    indices = tensor((1, 1, 1024, 1024), "uint8", data=bytes(1 << 20))
    gradient = tensor((1, 1, 1024, 1024))
    request = backward(input_shape=LARGE, indices=indices, output_gradient=gradient)
    with closing(connection_to(hasty.http_address)) as connection:
        connection.request("POST", f"{SERVICE}/Backward", request.SerializeToString(), PROTO)
        assert connection.sock.recv(1, socket.MSG_PEEK) == b"H"  # the reply is on its way
        wait_for_unfinished(hasty, 0)
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            read(connection)
