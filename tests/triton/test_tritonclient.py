"""NVIDIA's unmodified tritonclient against a running server, over gRPC, asyncio and REST.

`make test-triton` runs this file in an environment of its own, because tritonclient and the server
need different versions of protobuf. The server runs in the project's environment.
"""

from __future__ import annotations

import asyncio
import os
import queue
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
from tritonclient.utils import InferenceServerException

ROOT = Path(__file__).parents[2]
SERVER_PYTHON = os.environ.get("POOLING_SERVER_PYTHON", str(ROOT / ".venv/bin/python"))
X = np.arange(32, dtype=np.float32).reshape(1, 2, 4, 4)
POOLED = X.reshape(1, 2, 2, 2, 2, 2).max((3, 5))
PARAMETERS = {"kernel": "2,2", "stride": 2, "ceil_mode": False}
LIMIT_S = 30


@pytest.fixture(scope="module")
def addresses() -> Iterator[tuple[str, str]]:
    """Start a server; yield its addresses for gRPC and for HTTP."""
    command = [SERVER_PYTHON, "-m", "pooling_server", "--listen", "127.0.0.1:0"]
    command += ["--http-listen", "127.0.0.1:0", "--backend", "numpy"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        banner = process.stdout.readline()
        words = banner.replace(",", " ").split()
        yield words[words.index("on") + 1], words[words.index("HTTP") + 2]
        process.terminate()
        assert process.wait(LIMIT_S) == 0


def inputs_of(kind, array, datatype="FP32", name="input"):
    tensor = kind.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return [tensor]


@pytest.fixture(scope="module")
def grpc_client(addresses):
    with tritonclient.grpc.InferenceServerClient(addresses[0]) as client:
        yield client


@pytest.fixture(scope="module")
def http_client(addresses):
    with tritonclient.http.InferenceServerClient(addresses[1]) as client:
        yield client


@pytest.fixture(params=["grpc", "http"])
def client(request):
    return request.getfixturevalue(f"{request.param}_client")


def kind_of(client):
    return tritonclient.grpc if "grpc" in type(client).__module__ else tritonclient.http


def test_outputs_and_indices_are_pooled(client) -> None:
    kind = kind_of(client)
    outputs = [kind.InferRequestedOutput(name) for name in ("output", "indices")]
    result = client.infer(
        "max_pool2d",
        inputs_of(kind, X),
        outputs=outputs,
        parameters=PARAMETERS,
        request_id="7",
    )
    np.testing.assert_array_equal(result.as_numpy("output"), POOLED)
    np.testing.assert_array_equal(result.as_numpy("indices"), np.full(POOLED.shape, 3, np.uint8))


def test_a_gradient_is_a_model(client) -> None:
    kind = kind_of(client)
    gradient = np.ones_like(POOLED)
    result = client.infer(
        "average_pool2d_gradient",
        inputs_of(kind, gradient, name="output_gradient"),
        parameters={"kernel": 2, "input_shape": "1,2,4,4"},
    )
    np.testing.assert_array_equal(result.as_numpy("input_gradient"), np.full_like(X, 0.25))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["FP16", "BF16"])
def test_16_bit_floats_are_pooled(grpc_client, dtype) -> None:
    datatype = "FP16" if dtype is np.float16 else "BF16"
    inputs = inputs_of(tritonclient.grpc, X.astype(dtype), datatype)
    result = grpc_client.infer("max_pool2d", inputs, parameters=PARAMETERS)
    np.testing.assert_array_equal(result.as_numpy("output").astype(np.float32), POOLED)


def test_json_elements_are_pooled_over_rest(http_client) -> None:
    tensor = tritonclient.http.InferInput("input", list(X.shape), "FP32")
    tensor.set_data_from_numpy(X, binary_data=False)
    outputs = [tritonclient.http.InferRequestedOutput("output", binary_data=False)]
    result = http_client.infer("max_pool2d", [tensor], outputs=outputs, parameters=PARAMETERS)
    np.testing.assert_array_equal(result.as_numpy("output"), POOLED)


def test_errors_have_the_text_of_the_server(client) -> None:
    kind = kind_of(client)
    with pytest.raises(InferenceServerException, match="kernel is 0"):
        client.infer("max_pool2d", inputs_of(kind, X), parameters={"kernel": 0})
    with pytest.raises(InferenceServerException, match="max_pool9d"):
        client.infer("max_pool9d", inputs_of(kind, X))


def test_the_server_describes_itself(client) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("max_pool2d")
    assert not client.is_model_ready("max_pool9d")
    client.get_server_metadata()
    client.get_model_metadata("max_pool2d")
    client.get_model_config("max_pool2d")
    client.get_inference_statistics("max_pool2d")
    client.get_model_repository_index()


def test_shared_memory_is_rejected_with_an_alternative(grpc_client) -> None:
    with pytest.raises(InferenceServerException, match="unix:"):
        grpc_client.register_system_shared_memory("region", "/key", 64)


def test_a_stream_answers_in_order_and_reports_errors(grpc_client) -> None:
    answers: queue.Queue = queue.Queue()
    grpc_client.start_stream(lambda result, error: answers.put((result, error)))
    for kernel in (2, 0, 2):
        grpc_client.async_stream_infer(
            "max_pool2d", inputs_of(tritonclient.grpc, X), parameters={"kernel": kernel}
        )
    received = [answers.get(timeout=LIMIT_S) for _ in range(3)]
    grpc_client.stop_stream()
    assert [error is None for _, error in received] == [True, False, True]
    assert "kernel is 0" in str(received[1][1])
    np.testing.assert_array_equal(received[2][0].as_numpy("output"), POOLED)


def test_the_asyncio_client_pools(addresses) -> None:
    async def infer():
        async with tritonclient.grpc.aio.InferenceServerClient(addresses[0]) as client:
            inputs = inputs_of(tritonclient.grpc.aio, X)
            return await client.infer("max_pool2d", inputs, parameters=PARAMETERS)

    result = asyncio.run(infer())
    np.testing.assert_array_equal(result.as_numpy("output"), POOLED)


def test_one_process_imports_both_clients_and_the_server(addresses) -> None:
    script = (
        "import sys, numpy, tritonclient.grpc, pooling_client, pooling_server.oip.service\n"
        "import tritonclient.grpc as triton\n"
        "x = numpy.ones((1, 1, 4, 4), numpy.float32)\n"
        "with pooling_client.PoolingClient(sys.argv[1]) as ours:\n"
        "    a = ours.forward(x, pooling_client.PoolSpec('max', 2)).output\n"
        "tensor = triton.InferInput('input', x.shape, 'FP32')\n"
        "tensor.set_data_from_numpy(x)\n"
        "client = triton.InferenceServerClient(sys.argv[1])\n"
        "b = client.infer('max_pool2d', [tensor], parameters={'kernel': 2}).as_numpy('output')\n"
        "assert (a == b).all()\n"
    )
    folders = [str(ROOT / folder) for folder in ("", "wire", "server", "client")]
    subprocess.run(
        [sys.executable, "-c", script, addresses[0]],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        check=True,
        timeout=LIMIT_S,
    )


def test_the_example_of_the_page_prints_the_pooled_tensor(addresses, capsys) -> None:
    page = (ROOT / "docs/open-inference-protocol.md").read_text()
    example = page.partition("```python\n")[2].partition("```")[0]
    exec(example.replace("127.0.0.1:50051", addresses[0]), {})
    assert capsys.readouterr().out.split() == ["[[[[", "5.", "7.]", "[13.", "15.]]]]"]
