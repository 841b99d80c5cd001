"""Load on other servers through the Open Inference Protocol, over gRPC and REST."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest

import pooling_engine
from pooling_engine import PoolSpec
from pooling_loadtest.errors import TargetError
from pooling_loadtest.oip import messages, proto
from pooling_loadtest.oip.requests import InferRequest, request_of
from pooling_loadtest.payloads import payloads_of
from pooling_loadtest.settings import KindOfCall
from tests.loadtest.servers import fake_server
from tests.loadtest.support import SPEC, run

INFER = "/inference.GRPCInferenceService/ModelInfer"
# Serialised by the generated code of open_inference_grpc.proto.
REQUEST = bytes.fromhex(
    "0a04706f6f6c22070a0162120208002a0e0a01781204465033321a030102033a18"
    "000000000000803f0000004000004040000080400000a040"
)
RESPONSE = bytes.fromhex(
    "0a04706f6f6c1201311a013722070a0174120210032a160a01791204465031361a02020122070a017112020801"
    "2a0d0a017a1205494e5436341a01013204003c00403208fbffffffffffffff"
)
METADATA = bytes.fromhex(
    "0a04706f6f6c1201311a017022160a01781204465033321a0bffffffffffffffffff0103"
    "2a150a01791204465033321a0affffffffffffffffff01"
)


def test_messages_are_those_of_the_published_proto() -> None:
    x = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    assert messages.encode_grpc(InferRequest("pool", {"x": x}, {"b": False})) == REQUEST
    first, second = messages.decode_grpc(RESPONSE)
    np.testing.assert_array_equal(first, np.array([[1], [2]], np.float16), strict=True)
    np.testing.assert_array_equal(second, np.array([-5]), strict=True)
    metadata = proto.ModelMetadataResponse.FromString(METADATA)
    assert [(each.name, list(each.shape)) for each in metadata.inputs] == [("x", [-1, 3])]


@pytest.mark.parametrize(
    ("value", "expected"), [(0, "1000"), ("", "1a00"), (0.5, "21000000000000e03f"), (True, "0801")]
)
def test_parameters_keep_their_type(value: Any, expected: str) -> None:
    request = messages.encode_grpc(InferRequest("m", {}, {"k": value}))
    assert bytes.fromhex(expected) == request[-len(expected) // 2 :]


def test_json_keeps_types_and_shapes() -> None:
    x = np.arange(4).astype(ml_dtypes.bfloat16).reshape(2, 2)
    (described,) = json.loads(messages.encode_json(InferRequest("m", {"x": x}, {"a": 1})))["inputs"]
    assert described == {"name": "x", "shape": [2, 2], "datatype": "BF16", "data": [0, 1, 2, 3]}
    body = json.dumps({"outputs": [described]}).encode()
    np.testing.assert_array_equal(messages.decode_json(body)[0], x, strict=True)


def test_models_of_a_pooling_server_have_the_options_as_parameters() -> None:
    spec = {
        "mode": "max",
        "kernel": (2, 4),
        "stride": 2,
        "padding": ((0, 1), (1, 1)),
        "ceil_mode": True,
    }
    kind = KindOfCall("k", (1, 2, 8, 8), "float32", spec, return_indices=True)
    call = payloads_of(kind, 0)[0].call
    options = {"kernel": "2,4", "stride": 2, "padding": "0:1,1:1", "ceil_mode": True}
    found = request_of(call, spec, None, None, {})
    assert (found.model, list(found.inputs)) == ("max_pool2d", ["input"])
    assert (found.parameters, found.outputs) == (options, ("output", "indices"))

    back = payloads_of(replace(kind, direction="backward"), 0)[0].call
    found = request_of(back, spec, None, None, {"more": 1})
    assert (found.model, found.outputs) == ("max_pool2d_gradient", ())
    assert list(found.inputs) == ["output_gradient", "indices"]
    assert found.parameters == options | {"input_shape": "1,2,8,8", "more": 1}


def pooled(x: Any) -> Any:
    return pooling_engine.forward(x, PoolSpec(**SPEC)).output


def infer(number: int, request: bytes, context: Any) -> bytes:
    """Answer as an OIP server does."""
    decoded = proto.ModelInferRequest.FromString(request)
    if decoded.model_name != "pool":
        context.abort(grpc.StatusCode.NOT_FOUND, f"no model {decoded.model_name}")
    (tensor,), (raw,) = decoded.inputs, decoded.raw_input_contents
    assert tensor.name == "x"
    y = pooled(np.frombuffer(raw, np.float32).reshape(tuple(tensor.shape)))
    response = proto.ModelInferResponse(model_name="pool")
    response.outputs.add(name="y", datatype="FP32", shape=y.shape)
    response.raw_output_contents.append(y.tobytes())
    return bytes(response.SerializeToString())


class Rest(BaseHTTPRequestHandler):
    """OIP over REST; every hundredth request fails."""

    protocol_version = "HTTP/1.1"
    requests = 0

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        type(self).requests += 1
        if self.path != "/v2/models/pool/infer":
            self.reply(404, {"error": f"no {self.path}"})
        elif self.requests % 100 == 0:
            self.reply(503, {"error": "busy"})
        else:
            (x,) = body["inputs"]
            y = pooled(np.array(x["data"], np.float32).reshape(x["shape"]))
            output = {"name": "y", "datatype": "FP32", "shape": y.shape, "data": y.ravel().tolist()}
            self.reply(200, {"model_name": "pool", "outputs": [output]})

    def reply(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def rest_server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Rest) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_server_over_grpc() -> None:
    with fake_server(infer, INFER) as (target, _):
        results = run(target, protocol="oip-grpc", model="pool", input="x", verify=1.0)
        with pytest.raises(TargetError, match="NOT_FOUND: no model other"):
            run(target, protocol="oip-grpc", model="other", input="x")
    assert results.calls.is_ok.all()
    assert results.run.verify == {"fraction": 1.0, "checked": 50, "wrong": 0}
    assert results.run.kinds[0].transport == "oip-grpc"


def test_the_server_names_the_input() -> None:
    def metadata(number: int, request: bytes, context: Any) -> bytes:
        return METADATA

    path = "/inference.GRPCInferenceService/ModelMetadata"
    with (
        fake_server(metadata, path) as (target, _),
        pytest.raises(TargetError, match="does not speak the Open Inference Protocol"),
    ):
        run(target, protocol="oip-grpc", model="pool")  # it has the metadata only


def test_a_server_over_rest() -> None:
    Rest.requests = 0
    with rest_server() as target:
        results = run(target, protocol="oip-rest", model="pool", verify=1.0, rate=400)
        with pytest.raises(TargetError, match="no /v2/models/other/infer"):
            run(target, protocol="oip-rest", model="other")
    calls = results.calls
    assert len(calls) == 200
    assert np.count_nonzero(calls.status == 14) == 2
    assert results.run.verify == {"fraction": 1.0, "checked": 198, "wrong": 0}


def test_a_server_with_another_protocol_over_rest() -> None:
    with (
        fake_server(infer, INFER) as (target, _),
        pytest.raises(TargetError, match="does not answer over REST: no HTTP reply"),
    ):
        run(target, protocol="oip-rest", model="pool")
