"""Connect and gRPC-Web: errors with details, headers, JSON, `curl` and `buf curl`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pooling_server import PoolingServer
from pooling_wire.v1 import pooling_pb2 as pb
from tests.http.support import PROTOCOLS, SERVICE, RejectedError, send, serving
from tests.support.requests import backward, forward, sliding, spec
from tests.support.waiting import LIMIT_S

ROOT = Path(__file__).parents[2]
BUF = Path(sys.executable).with_name("buf")
JSON = {"content-type": "application/json"}
WINDOWS = {"slidingWindows": {"axes": [{"kernel": 2}, {"kernel": 2}]}}
REQUEST = {
    "spec": {"mode": "MODE_MAX", **WINDOWS},
    "input": {"elementType": "ELEMENT_TYPE_UINT8", "shape": [1, 1, 2, 2], "data": "AQIDBA=="},
}


@pytest.fixture(scope="module")
def server() -> Iterator[PoolingServer]:
    with serving() as server:
        yield server


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> Any:
    return PROTOCOLS[request.param]


def test_every_unary_method_is_served(server: PoolingServer, protocol: Any) -> None:
    address = server.http_address
    assert list(protocol.call(address, forward(return_indices=True)).indices.shape) == [1, 1, 2, 2]
    assert list(protocol.call(address, backward()).input_gradient.shape) == [1, 1, 4, 4]
    plan = pb.GetPlanRequest(
        spec=spec(), input_shape=(1, 1, 4, 4), element_type=pb.ELEMENT_TYPE_FLOAT32
    )
    assert list(protocol.call(address, plan).output_shape) == [1, 1, 2, 2]
    assert protocol.call(address, pb.GetServerInfoRequest()).limits.max_in_flight == 32


def test_an_error_has_the_details_and_trailers_of_grpc(
    server: PoolingServer, protocol: Any
) -> None:
    wrong = forward(spec=spec(windows=sliding(kernel=0)))
    with pytest.raises(RejectedError) as caught:
        protocol.call(server.http_address, wrong, x_request_id="mine")
    error = caught.value
    field = "spec.sliding_windows.axes[1].kernel"
    assert error.record == {"code": "INVALID_ARGUMENT", "reason": "INVALID_SPEC", "field": field}
    assert error.details["BadRequest"].field_violations[0].description == error.text
    assert error.details["ErrorInfo"].domain == "pooling.v1"
    assert error.trailers["x-request-id"] == "mine"
    assert error.trailers["server-timing"].startswith("queue;dur=")


def test_a_reply_has_its_id_and_its_times_in_headers(server: PoolingServer) -> None:
    headers = JSON | {"x-request-id": "mine"}
    reply = send(server.http_address, f"{SERVICE}/Forward", json.dumps(REQUEST), headers)
    assert reply.headers["x-request-id"] == "mine"
    assert reply.headers["server-timing"].startswith("queue;dur=")
    assert reply.headers["content-length"] == str(len(reply.body))
    assert "access-control-allow-origin" not in reply.headers


def test_a_truncated_message_is_invalid(server: PoolingServer, protocol: Any) -> None:
    whole = protocol.encoded(forward())
    headers = {"content-type": protocol.content_type}
    for length in (1, len(whole) // 2, len(whole) - 1):
        reply = send(server.http_address, f"{SERVICE}/Forward", whole[:length], headers)
        with pytest.raises(RejectedError) as caught:
            protocol.result(reply, pb.ForwardResponse)
        assert caught.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("text", "field", "reason"),
    [
        (b"", "", "object in braces"),
        (b"{", "", "Expecting property name"),
        (b"[]", "", "object in braces"),
        (b'{"spec":' * 100_000, "", "recursion depth"),
        (b'{"spec": "\xff"}', "", "utf-8"),
        (b'{"spac": {}}', "spac", 'has no field named "spac"'),
        (b'{"spec": {"kernel": 2}}', "spec.kernel", 'has no field named "kernel"'),
        (b'{"padding[0][9]": 1}', "padding[0][9]", 'has no field named "padding[0][9]"'),
        (b'{"kernel": 2}', "kernel", 'has no field named "kernel"'),
        (b'{"' + b"a" * 10**6 + b'": 1}', "", 'has no field named "aaa'),
        (b'{"spec": {}, "spec": {}}', "", "duplicate key spec"),
        (b'{"spec": {"mode": "MODE_MEDIAN"}}', "spec.mode", "MODE_MEDIAN"),
        (b'{"spec": {"normP": NaN}}', "spec.normP", 'use quoted "NaN"'),
        (b'{"spec": {"normP": 1e999}}', "spec.normP", 'quoted "Infinity"'),
        (b'{"input": {"shape": [1.5]}}', "input.shape[0]", "1.5"),
        (b'{"input": {"data": "AQ"}}', "input.element_type", ""),
        (b'{"input": {"data": "A"}}', "input.data", "base64"),
        (b'{"input": {"data": 1}}', "input.data", "the type of its field"),
        (b'{"input": {"data": [1, 2]}}', "input.data", "the type of its field"),
        (b'{"input": {"shape": ["a"]}}', "input.shape", "the type of its field"),
        (b'{"input": {"elementType": "\\ud800"}}', "", "the type of its field"),
        (b'{"spec": 3}', "spec", "the type of its field"),
        (b'{"returnIndices": "yes"}', "returnIndices", "without quotes"),
        (b'{"spec": {"mode": "MODE_MAX", "globalWindow": 1}}', "spec.globalWindow", ""),
    ],
)
def test_wrong_json_names_the_place(
    server: PoolingServer, text: bytes, field: str, reason: str
) -> None:
    reply = send(server.http_address, f"{SERVICE}/Forward", text, JSON)
    assert reply.status == 400
    with pytest.raises(RejectedError) as caught:
        PROTOCOLS["connect-json"].result(reply, pb.ForwardResponse)
    error = caught.value
    assert (error.code, error.record["field"]) == ("INVALID_ARGUMENT", field), error.text
    assert reason in error.text
    assert "\n" not in error.text


def test_other_paths_methods_and_types_are_rejected(server: PoolingServer) -> None:
    address = server.http_address
    assert send(address, "/", b"").status == 404
    assert send(address, f"{SERVICE}/Median", b"{}", JSON).status == 404
    assert send(address, f"{SERVICE}/Forward", method="GET").status == 405
    native = {"content-type": "application/grpc"}
    reply = send(address, f"{SERVICE}/Forward", b"", native)
    assert (reply.status, b"--listen" in reply.body) == (415, True)
    other = send(address, f"{SERVICE}/Forward", b"a: b", {"content-type": "application/yaml"})
    assert other.status == 415
    packed = JSON | {"content-encoding": "gzip"}
    assert send(address, f"{SERVICE}/Forward", b"", packed).status == 501
    assert send(address, f"{SERVICE}/Forward", b"{}", JSON | {"x-a": "\xff"}).status == 400


def test_probes(server: PoolingServer) -> None:
    assert send(server.http_address, "/livez", method="GET").status == 200
    assert send(server.http_address, "/readyz", method="GET").body == b"ready\n"


def test_curl(server: PoolingServer) -> None:
    url = f"http://{server.http_address}{SERVICE}/Forward"
    command = ["curl", "-s", url, "-H", "content-type: application/json", "-d", json.dumps(REQUEST)]
    done = subprocess.run(command, capture_output=True, timeout=LIMIT_S, check=True)
    output = {"elementType": "ELEMENT_TYPE_UINT8", "shape": ["1", "1", "1", "1"], "data": "BA=="}
    assert json.loads(done.stdout) == {"output": output}


@pytest.mark.parametrize("name", ["connect", "grpcweb", "grpc"])
def test_buf_curl(server: PoolingServer, name: str) -> None:
    address = server.address if name == "grpc" else server.http_address
    options = ["--http2-prior-knowledge"] if name == "grpc" else []
    command = [BUF, "curl", "--schema", ROOT / "protos", "--protocol", name, *options]
    command += ["-d", json.dumps(REQUEST), f"http://{address}{SERVICE}/Forward"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["output"]["data"] == "BA=="
    command[-2] = json.dumps(REQUEST | {"spec": {"mode": "MODE_MAX"}})
    command[command.index("-d") + 1] = json.dumps(REQUEST | {"spec": {"mode": "MODE_MAX"}})
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    error = json.loads(done.stderr)
    assert error["code"] == "invalid_argument"
    types = [detail["type"] for detail in error["details"]]
    assert types == ["google.rpc.ErrorInfo", "google.rpc.BadRequest"]
