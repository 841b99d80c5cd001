"""The Open Inference Protocol over REST: the vectors, JSON, binary tensors, errors, information."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import pooling_engine
from pooling_server import PoolingServer
from pooling_wire.v1 import pooling_pb2 as pb
from tests.http.support import assert_serves, send, serving
from tests.oip.rest_support import (
    DTYPES,
    JSON_SIZE,
    RestError,
    binary,
    outputs_of,
    post,
    with_json,
)
from tests.oip.test_grpc_vectors import UNARY, expressible
from tests.oip.translation import Request, datatype, expected_bytes, tensor_of

X = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
INPUT = {"name": "input", "shape": [1, 1, 4, 4], "datatype": "FP32", "data": X.tolist()}
VALID: dict[str, Any] = {"parameters": {"kernel": 2}, "inputs": [INPUT]}
_NAMES = {"inputGradient": "input_gradient"}


@pytest.fixture(scope="module")
def server() -> Iterator[PoolingServer]:
    with serving() as server:
        yield server


def assert_outputs(outputs: Any, expected: dict[str, Any], name: str) -> None:
    assert outputs.keys() == {_NAMES.get(key, key) for key in expected}, name
    for key, record in expected.items():
        actual = outputs[_NAMES.get(key, key)]
        type_ = datatype(pb.ElementType.Value(record["elementType"]))
        assert (actual == (type_, record["shape"], expected_bytes(record))) is True, name


@pytest.mark.parametrize("name", UNARY)
def test_binary_replies_are_exactly_those_of_the_vectors(server: PoolingServer, name: str) -> None:
    for vector, request in expressible(name):
        if has_infinite_parameter(request):
            continue
        if "error" in vector:
            with pytest.raises(RestError) as caught:
                binary(server.http_address, request)
            assert caught.value.status in (400, 413, 501), vector["name"]
        else:
            outputs = binary(server.http_address, request)
            assert_outputs(outputs, vector["reply"], vector["name"])


def has_infinite_parameter(request: Request) -> bool:
    """Return True if JSON cannot express a parameter as a number."""
    values = request.parameters.values()
    return any(isinstance(value, float) and not np.isfinite(value) for value in values)


def is_json(request: Request, vector: dict[str, Any]) -> bool:
    """Return True if JSON can express all tensors and parameters of a vector."""
    tensors = list(request.inputs.values())
    for record in vector.get("reply", {}).values():
        type_ = datatype(pb.ElementType.Value(record["elementType"]))
        tensors.append((type_, record["shape"], expected_bytes(record)))
    for type_, _, data in tensors:
        if type_ not in DTYPES or not np.isfinite(np.frombuffer(data, DTYPES[type_])).all():
            return False
    return not has_infinite_parameter(request)


@pytest.mark.parametrize("is_nested", [True, False], ids=["nested", "flat"])
def test_json_replies_are_exactly_those_of_the_vectors(
    server: PoolingServer, is_nested: bool
) -> None:
    checked = 0
    for name in ("forward_values", "forward_layers", "backward_layers", "forward_types"):
        for vector, request in expressible(name):
            if "reply" in vector and is_json(request, vector):
                outputs = with_json(server.http_address, request, is_nested=is_nested)
                assert_outputs(outputs, vector["reply"], vector["name"])
                checked += 1
    assert checked > 20


def test_a_reply_repeats_the_id_and_has_the_trailers_as_headers(server: PoolingServer) -> None:
    reply = post(server.http_address, "max_pool2d", VALID | {"id": "é"}, x_request_id="mine")
    record = json.loads(reply.body)
    assert record["id"] == "é"
    assert record["model_name"] == "max_pool2d"
    assert record["outputs"][0]["data"] == [5, 7, 13, 15]
    assert reply.headers["x-request-id"] == "mine"
    assert reply.headers["server-timing"].startswith("queue;dur=")


def test_outputs_choose_between_json_and_binary_data(server: PoolingServer) -> None:
    outputs = [{"name": "output"}, {"name": "indices", "parameters": {"binary_data": True}}]
    reply = post(server.http_address, "max_pool2d", VALID | {"outputs": outputs})
    size = int(reply.headers[JSON_SIZE])
    record = json.loads(reply.body[:size])
    assert record["outputs"][0]["data"] == [5, 7, 13, 15]
    assert record["outputs"][1]["parameters"] == {"binary_data_size": 4}
    assert reply.body[size:] == b"\3\3\3\3"


def changed(**changes: Any) -> dict[str, Any]:
    return VALID | {"inputs": [INPUT | changes]}


BINARY = {"parameters": {"binary_data_size": 64}}
HALF = "\ud800"  # of a surrogate pair: JSON can express it, UTF-8 cannot
WITHOUT_DATA = {key: value for key, value in INPUT.items() if key != "data"}
INVALID = {
    "no JSON": (b"{", 400, "not valid JSON"),
    "no object": (b"[]", 400, "braces"),
    "deep lists": (b"[" * 100_000, 400, "not valid JSON"),
    "NaN": (json.dumps(changed(data=[float("nan")] * 16)).encode(), 400, "NaN"),
    "an infinite number": (json.dumps(VALID).replace("5.0", "1e999").encode(), 400, "FP32"),
    "no inputs": ({}, 400, "inputs"),
    "an unknown field": (VALID | {"input": 1}, 400, "'input'"),
    "a line break in a name": (changed(parameters={"a\r\nb": 1}), 400, "parameters.a\\r\\nb"),
    "an unknown field with brackets": (VALID | {"x [0, 3]": 1}, 400, "'x [0, 3]'"),
    "an unknown field of an input": (changed(type="FP32"), 400, "inputs[0] has no field 'type'"),
    "an id of the wrong type": (VALID | {"id": 1}, 400, "id is 1"),
    "a list as a parameter": (VALID | {"parameters": {"kernel": [2, 2]}}, 400, '"3,2"'),
    "a kernel of the wrong type": (VALID | {"parameters": {"kernel": True}}, 400, "kernel is True"),
    "a shape of the wrong type": (changed(shape=[1, 1, 4, 4.0]), 400, "inputs[0].shape"),
    "a shape of booleans": (changed(shape=[True, 1, 4, 4]), 400, "inputs[0].shape"),
    "a datatype of the wrong type": (changed(datatype=1), 400, "inputs[0].datatype"),
    "too few elements": (changed(data=[1, 2]), 400, "inputs[0].data"),
    "lists of different lengths": (changed(data=[[1], [1, 2]]), 400, "inputs[0].data"),
    "text as an element": (changed(data=["a"] * 16), 400, "inputs[0].data"),
    "fractions of an integer": (changed(datatype="INT32", data=[0.5] * 16), 400, "INT32"),
    "an integer that is too large": (changed(datatype="UINT8", data=[256] * 16), 400, "UINT8"),
    "a float that is too large": (changed(data=[1e300] * 16), 400, "FP32"),
    "a large shape": (changed(shape=[2**40, 2**40, 4, 4]), 400, "inputs[0].data"),
    "an absurdly large empty shape": (changed(shape=[0, 2**40, 2**40, 4], data=[]), 413, "2^60"),
    "half floats in JSON": (changed(datatype="FP16"), 400, "binary"),
    "data twice": (changed(**BINARY), 400, "both"),
    "missing binary data": (
        VALID | {"inputs": [WITHOUT_DATA | BINARY]},
        400,
        "0 bytes left",
    ),
    "a key twice": (b'{"inputs": [], "inputs": []}', 400, "'inputs' twice"),
    "a size of the wrong type": (
        VALID | {"inputs": [WITHOUT_DATA | {"parameters": {"binary_data_size": "64"}}]},
        400,
        "binary_data_size is '64'; it must be a number of bytes",
    ),
    "a negative size": (
        VALID | {"inputs": [WITHOUT_DATA | {"parameters": {"binary_data_size": -1}}]},
        400,
        "binary_data_size is -1; it must be a number of bytes",
    ),
    "half a character as an input": (changed(name=HALF), 400, "'\\ud800'"),
    "half a character as a parameter": (VALID | {"parameters": {HALF: 1}}, 400, "'\\ud800'"),
    "half a character as an output": (VALID | {"outputs": [{"name": HALF}]}, 400, "'\\ud800'"),
    "half a character as a field": (VALID | {HALF: 1}, 400, "'\\ud800'"),
    "a long name": (changed(name="n" * 100_000), 400, "its inputs: input"),
    "registered memory": (changed(parameters={"shared_memory_region": "r"}), 501, "unix:"),
    "a flag that is none": (
        VALID | {"outputs": [{"name": "output", "parameters": {"binary_data": 1}}]},
        400,
        "outputs[0].parameters.binary_data",
    ),
}


@pytest.mark.parametrize("name", INVALID)
def test_an_error_names_the_field_as_the_caller_wrote_it(server: PoolingServer, name: str) -> None:
    body, status, part = INVALID[name]
    with pytest.raises(RestError) as caught:
        outputs_of(post(server.http_address, "max_pool2d", body))
    assert caught.value.status == status
    assert part in caught.value.text
    assert_serves(server)


@pytest.mark.parametrize(
    ("size", "part"), [("x", "number of bytes"), ("999", "999"), ("0", "JSON")]
)
def test_wrong_lengths_of_the_json_are_rejected(
    server: PoolingServer, size: str, part: str
) -> None:
    with pytest.raises(RestError) as caught:
        outputs_of(post(server.http_address, "max_pool2d", b"{}", **{JSON_SIZE: size}))
    assert caught.value.status == 400
    assert part in caught.value.text


def test_compressed_bodies_are_rejected(server: PoolingServer) -> None:
    body = gzip.compress(json.dumps(VALID).encode())
    with pytest.raises(RestError) as caught:
        outputs_of(post(server.http_address, "max_pool2d", body, content_encoding="gzip"))
    assert caught.value.status == 501
    assert "Content-Encoding is 'gzip'" in caught.value.text


def test_bytes_after_the_tensors_are_rejected(server: PoolingServer) -> None:
    head = json.dumps(VALID).encode()
    headers = {JSON_SIZE: str(len(head))}
    with pytest.raises(RestError) as caught:
        outputs_of(post(server.http_address, "max_pool2d", head + b"123", **headers))
    assert "3 bytes after" in caught.value.text


def test_results_that_json_cannot_hold_are_binary_only(server: PoolingServer) -> None:
    x = np.full((1, 1, 2, 2), np.nan, np.float32)
    request = Request("max_pool2d", {"kernel": 2}, {"input": tensor_of(x)}, [])
    assert binary(server.http_address, request)["output"] == tensor_of(x[:, :, :1, :1])
    body = json.dumps(
        {
            "parameters": {"kernel": 2},
            "inputs": [{"name": "input", "shape": [1, 1, 2, 2], "datatype": "FP32"}],
        }
    ).encode()
    body = body.replace(b'"FP32"', b'"FP32", "parameters": {"binary_data_size": 16}')
    headers = {JSON_SIZE: str(len(body))}
    with pytest.raises(RestError) as caught:
        outputs_of(post(server.http_address, "max_pool2d", body + x.tobytes(), **headers))
    assert "binary_data" in caught.value.text


def get(server: PoolingServer, path: str, method: str = "GET") -> Any:
    reply = send(server.http_address, path, method=method)
    return reply.status, json.loads(reply.body) if reply.body else None


def test_the_server_describes_itself_and_its_models(server: PoolingServer) -> None:
    assert get(server, "/v2/health/live") == (200, None)
    assert get(server, "/v2/health/ready") == (200, None)
    assert get(server, "/v2")[1]["name"] == "pooling"
    assert get(server, "/v2/models/max_pool2d/ready") == (200, None)
    assert get(server, "/v2/models/max_pool2d/versions/1/ready") == (200, None)
    assert get(server, "/v2/models/max_pool9d/ready") == (404, None)
    metadata = get(server, "/v2/models/max_pool2d")[1]
    assert metadata["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1] * 4}]
    assert metadata["versions"] == ["1"]
    config = get(server, "/v2/models/max_pool2d_gradient/config")[1]
    assert [each["name"] for each in config["input"] if each["optional"]] == ["indices", "input"]
    assert len(get(server, "/v2/models/stats")[1]["model_stats"]) == 30
    stats = get(server, "/v2/models/max_pool2d/stats")[1]["model_stats"][0]
    assert isinstance(stats["inference_count"], int)
    index = get(server, "/v2/repository/index", "POST")[1]
    assert {model["state"] for model in index} == {"READY"}
    status, record = get(server, "/v2/models/max_pool9d")
    assert status == 404
    assert "max_pool9d" in record["error"]


def test_unknown_models_are_not_found(server: PoolingServer) -> None:
    for model in ("max_pool9d", "max_pool2d/versions/7"):
        with pytest.raises(RestError) as caught:
            outputs_of(post(server.http_address, model, VALID))
        assert caught.value.status == 404
        with pytest.raises(RestError) as caught:
            outputs_of(post(server.http_address, model, b"{}"))
        assert caught.value.status == 404


@pytest.mark.parametrize(
    ("path", "body", "status", "part"),
    [
        ("/v2/models", None, 404, "there is no route /v2/models"),
        ("/v2/systemsharedmemory/status", None, 501, "unix:PATH"),
        ("/v2/cudasharedmemory/region/x/register", b"{}", 501, "unix:PATH"),
        ("/v2/models/max_pool2d/infer", None, 405, "has no GET; it has POST"),
        ("/v2", b"{}", 405, "has no POST; it has GET, HEAD"),
    ],
)
def test_unknown_routes_and_methods_are_errors_of_the_protocol(
    server: PoolingServer, path: str, body: bytes | None, status: int, part: str
) -> None:
    reply = send(server.http_address, path, body, method="GET" if body is None else "POST")
    assert reply.status == status
    assert part in json.loads(reply.body)["error"]


def test_bodies_over_the_limit_are_rejected() -> None:
    with serving(max_message_bytes=2000) as server, pytest.raises(RestError) as caught:
        outputs_of(post(server.http_address, "max_pool2d", changed(data=[0] * 2000)))
    assert caught.value.status == 413
    assert "--max-message-bytes" in caught.value.text


def test_the_engine_computes_what_json_requests(server: PoolingServer) -> None:
    parameters = {"kernel": "3,2", "stride": 1, "padding": "1:0,0:1", "norm_p": "inf"}
    request = Request("lp_pool2d", parameters, {"input": tensor_of(X)}, [])
    spec = pooling_engine.PoolSpec("lp", (3, 2), 1, ((1, 0), (0, 1)), norm_p=float("inf"))
    expected = pooling_engine.forward(X, spec).output
    assert with_json(server.http_address, request, is_nested=True)["output"] == tensor_of(expected)
