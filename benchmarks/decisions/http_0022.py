"""Measure calls over the HTTP endpoint relative to unary calls over gRPC (ADR 22).

The clients send the bytes of one request over and over, and do not decode the replies. Two threads
of the server compute, in another process.

    python -m benchmarks.decisions.http_0022
"""

from __future__ import annotations

import http.client
import statistics
import struct
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
from google.protobuf import json_format

import pooling_wire
from benchmarks import report
from pooling_engine import ForwardCall, PoolSpec
from pooling_wire import FORWARD
from tests.support.processes import process

SHAPES = {"12.5 KB": (1, 1, 56, 56), "125 KB": (1, 10, 56, 56), "6.4 MB": (8, 64, 56, 56)}
CALLS = {"12.5 KB": 200, "125 KB": 100, "6.4 MB": 8}
ROUNDS = 7


def bodies(shape: tuple[int, ...]) -> dict[str, tuple[str, bytes]]:
    """Return the content type and the body of each way."""
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    data = FORWARD.encode_request(ForwardCall(x, PoolSpec("max", 2)))
    message = pooling_wire.message_class("ForwardRequest").FromString(data)
    text = json_format.MessageToJson(message, indent=None).encode()
    return {
        "gRPC": ("", data),
        "Connect": ("application/proto", data),
        "gRPC-Web": ("application/grpc-web+proto", struct.pack(">BI", 0, len(data)) + data),
        "Connect with JSON": ("application/json", text),
    }


def caller(way: str, body: tuple[str, bytes], target: str, address: str) -> Callable[[], None]:
    """Return a function that makes one call over a connection that stays open."""
    type_, data = body
    if way == "gRPC":
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        call = grpc.insecure_channel(target, options).unary_unary(FORWARD.path)
        return lambda: call(data)
    connection = http.client.HTTPConnection(address)

    def post() -> None:
        connection.request("POST", FORWARD.path, data, {"content-type": type_})
        reply = connection.getresponse()
        assert reply.status == 200
        reply.read()

    return post


def rows_of(size: str, calls: dict[str, Callable[[], None]]) -> list[dict[str, Any]]:
    """Measure all ways by turns, and return their rows."""

    def measure(way: str) -> float:
        return statistics.median(report.samples(calls[way], CALLS[size]))

    for call in calls.values():
        report.samples(call, 3)
    taken = report.interleaved(list(calls), ROUNDS, measure)
    grpc_ms = taken["gRPC"]
    return [
        {
            "tensor": size,
            "protocol": way,
            "p50_ms": report.spread(times),
            "times_grpc": report.spread(a / b for a, b in zip(times, grpc_ms, strict=True)),
        }
        for way, times in taken.items()
    ]


def main() -> None:
    """Measure every tensor, print a table and write the result file."""
    flags = ["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
    rows: list[dict[str, Any]] = []
    with process(*flags) as (_, banner):
        target = banner.split(" listening on ")[1].partition(",")[0]
        address = banner.split(" HTTP on ")[1].partition(",")[0]
        for size, shape in SHAPES.items():
            ways = bodies(shape).items()
            rows += rows_of(size, {way: caller(way, body, target, address) for way, body in ways})
    lines = [
        [row["tensor"], row["protocol"], report.cell(row["p50_ms"]), report.cell(row["times_grpc"])]
        for row in rows
    ]
    print(report.table(["tensor", "protocol", "p50, ms", "/ gRPC"], lines, "---:"))
    command = "python -m benchmarks.decisions.http_0022"
    print(f"wrote {report.write('http', command, rows, rounds=ROUNDS)}")


if __name__ == "__main__":
    main()
