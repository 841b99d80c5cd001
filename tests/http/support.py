"""Clients of the HTTP endpoint that share no code with the server: Connect and gRPC-Web by hand."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import struct
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from pooling_server import PoolingServer, ServerConfig
from pooling_wire.v1 import pooling_pb2 as pb
from tests.support.requests import forward
from tests.support.waiting import LIMIT_S

SERVICE = "/pooling.v1.PoolingService"
_NUMBERS = {0: "OK", 1: "CANCELLED", 2: "UNKNOWN", 3: "INVALID_ARGUMENT", 4: "DEADLINE_EXCEEDED"}
_NUMBERS |= {7: "PERMISSION_DENIED", 8: "RESOURCE_EXHAUSTED", 12: "UNIMPLEMENTED", 13: "INTERNAL"}
_NUMBERS |= {14: "UNAVAILABLE", 16: "UNAUTHENTICATED"}


class Reply(NamedTuple):
    """Reply of HTTP; the names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class RejectedError(Exception):
    """Error of a call: the name of its code, its text, its details by name, and its trailers."""

    def __init__(self, code: str, text: str, details: list[Any], trailers: dict[str, str]) -> None:
        super().__init__(f"{code}: {text}")
        self.code, self.text, self.trailers = code, text, trailers
        self.details = {}
        for type_, value in details:
            name = type_.rpartition(".")[2]
            self.details[name] = getattr(error_details_pb2, name).FromString(value)

    @property
    def record(self) -> dict[str, str]:
        """Code, reason and field, as in the test vectors."""
        violation = self.details["BadRequest"].field_violations[0]
        reason = self.details["ErrorInfo"].reason
        return {"code": self.code, "reason": reason, "field": violation.field}


@contextmanager
def serving(**options: Any) -> Iterator[PoolingServer]:
    """Start a server with an HTTP endpoint on a free port."""
    config = {"listen": "127.0.0.1:0", "http_listen": "127.0.0.1:0"}
    config |= {"backend": "numpy", "warm_up": False} | options
    server = PoolingServer(ServerConfig(**config))
    server.start()
    try:
        yield server
    finally:
        assert server.stop(), "calls were left in flight"


def connection_to(address: str, context: ssl.SSLContext | None = None) -> Any:
    """Return a connection that is not open yet."""
    if context is None:
        return http.client.HTTPConnection(address, timeout=LIMIT_S)
    return http.client.HTTPSConnection(address, timeout=LIMIT_S, context=context)


def send(
    address: str,
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
    method: str = "POST",
    context: ssl.SSLContext | None = None,
) -> Reply:
    """Send one request over a new connection."""
    connection = connection_to(address, context)
    try:
        connection.request(method, path, body, headers or {})
        return read(connection)
    finally:
        connection.close()


def read(connection: Any) -> Reply:
    """Return the reply to the request that a connection has sent."""
    reply = connection.getresponse()
    headers = {key.lower(): value for key, value in reply.getheaders()}
    return Reply(reply.status, headers, reply.read())


class ConnectProto:
    """Unary calls of Connect with binary messages."""

    content_type = "application/proto"

    def encoded(self, message: Message) -> bytes:
        return message.SerializeToString()

    def decoded(self, type_: type[Message], body: bytes) -> Message:
        return type_.FromString(body)

    def result(self, reply: Reply, type_: type[Message]) -> Message:
        """Return the message of a reply.

        Raises:
            RejectedError: the reply is an error.
        """
        if reply.status == 200:
            assert reply.headers["content-type"] == self.content_type
            return self.decoded(type_, reply.body)
        assert reply.headers["content-type"] == "application/json"
        error = json.loads(reply.body)
        details = [
            (detail["type"], base64.b64decode(detail["value"] + "==="))
            for detail in error.get("details", ())
        ]
        code = error["code"].upper().replace("CANCELED", "CANCELLED")
        trailers = {
            key.removeprefix("trailer-"): value
            for key, value in reply.headers.items()
            if key.startswith("trailer-")
        }
        raise RejectedError(code, error["message"], details, trailers)

    def call(self, address: str, message: Message, **headers: str) -> Any:
        """Call the method of a request; underscores in the names of headers are hyphens."""
        name = type(message).__name__.removesuffix("Request")
        sent = {key.replace("_", "-"): value for key, value in headers.items()}
        sent["content-type"] = self.content_type
        reply = send(address, f"{SERVICE}/{name}", self.encoded(message), sent)
        return self.result(reply, getattr(pb, f"{name}Response"))


class ConnectJson(ConnectProto):
    """Unary calls of Connect with messages in JSON."""

    content_type = "application/json"

    def encoded(self, message: Message) -> bytes:
        return json_format.MessageToJson(message).encode()

    def decoded(self, type_: type[Message], body: bytes) -> Message:
        return json_format.Parse(body, type_())


class GrpcWeb(ConnectProto):
    """Calls of gRPC-Web: messages and trailers in frames with a flag and a length."""

    content_type = "application/grpc-web+proto"

    def encoded(self, message: Message) -> bytes:
        data = message.SerializeToString()
        return struct.pack(">BI", 0, len(data)) + data

    def result(self, reply: Reply, type_: type[Message]) -> Message:
        assert reply.status == 200, reply
        assert reply.headers["content-type"] == self.content_type
        frames = dict(_frames(reply.body))
        lines = frames[128].decode().splitlines()
        trailers = {
            key.lower(): value for key, _, value in (line.partition(": ") for line in lines)
        }
        if trailers["grpc-status"] == "0":
            return type_.FromString(frames[0])
        assert 0 not in frames
        encoded = trailers.get("grpc-status-details-bin", "")
        status = status_pb2.Status.FromString(base64.b64decode(encoded + "==="))
        details = [(detail.type_url, detail.value) for detail in status.details]
        code = _NUMBERS[int(trailers["grpc-status"])]
        text = urllib.parse.unquote(trailers["grpc-message"])
        raise RejectedError(code, text, details, trailers)


def _frames(body: bytes) -> Iterator[tuple[int, bytes]]:
    while body:
        flag, length = struct.unpack(">BI", body[:5])
        assert len(body) >= 5 + length
        yield flag, body[5 : 5 + length]
        body = body[5 + length :]


PROTOCOLS = {"connect-json": ConnectJson(), "connect-proto": ConnectProto(), "grpc-web": GrpcWeb()}


def assert_serves(server: PoolingServer) -> None:
    """Assert that the endpoint answers a valid request, and that no other call is in flight."""
    reply = PROTOCOLS["connect-proto"].call(server.http_address, forward())
    assert list(reply.output.shape) == [1, 1, 2, 2]
