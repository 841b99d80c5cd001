"""C++, Go, Java and Ruby against a live server: the examples, and every test vector."""

from __future__ import annotations

import json
import re
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from pooling_server import PoolingServer
from pooling_wire.v1 import pooling_pb2 as pb
from tests.languages.debian import building
from tests.vectors import replay
from tests.vectors.generate import FOLDER

POOLED = [5, 7, 13, 15]
GRADIENT = [0, 0, 0, 0, 0, 5, 0, 7, 0, 0, 0, 0, 0, 13, 0, 15]
VECTORS = [vector for name in replay.names() for vector in replay.load(name)]


def test_cpp(server: PoolingServer) -> None:
    example, vectors = building.build_cpp()
    check_example(building.run(*example, server.address))
    output = building.run(*vectors, server.address, *sorted(FOLDER.glob("*.json")))
    assert output == f"{len(VECTORS)} vectors\n"


@pytest.mark.parametrize("language", ["go", "java", "ruby"])
def test_an_example_and_the_vectors(server: PoolingServer, language: str) -> None:
    example, replayer = getattr(building, f"build_{language}")()
    check_example(building.run(*example, server.address))
    lines = "".join(json.dumps(sent(vector)) + "\n" for vector in VECTORS)
    results = building.run(*replayer, server.address, text=lines).splitlines()
    assert len(results) == len(VECTORS)
    for vector, line in zip(VECTORS, results, strict=True):
        check_result(vector, json.loads(line))


def test_an_example_is_short() -> None:
    for name in ("go/pool.go", "java/Pool.java", "ruby/pool.rb"):
        assert len((building.ROOT / "examples" / name).read_text().splitlines()) < 80


def check_example(output: str) -> None:
    """Assert that an example printed the pooled elements and the gradient."""
    numbers = [float(number) for number in re.findall(r"[\d.]+", output)]
    assert numbers == POOLED + GRADIENT


def sent(vector: replay.Record) -> replay.Record:
    """Return what a replayer reads: the method and its requests, in protobuf's JSON form."""
    if "requests" in vector:
        return {"method": vector["method"], "requests": vector["requests"]}
    request = vector["request"]
    if "repeat" in vector:
        request = json_format.MessageToDict(replay.request_of(vector))
    return {"method": vector["method"], "requests": [request]}


def check_result(vector: replay.Record, result: dict[str, Any]) -> None:
    """Assert that a replayer received what the vector expects."""
    if "error" in vector:
        error = result["Error"]
        code = next(code.name for code in grpc.StatusCode if code.value[0] == error["Code"])
        actual = {"code": code, "reason": error["Reason"], "field": error["Field"]}
        assert actual == vector["error"], vector["name"]
        return
    assert not result.get("Error"), (vector["name"], result)
    reply = getattr(pb, f"{vector['method']}Response")
    replies = [json_format.ParseDict(record, reply()) for record in result["Replies"]]
    if "replies" in vector:
        replay.assert_stream(replies, vector["replies"])
    else:
        (message,) = replies
        replay.assert_reply(message, vector["reply"])
