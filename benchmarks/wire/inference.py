"""Times of the Open Inference Protocol, relative to unary calls of `pooling.v1` in the same round.

Run by `python -m benchmarks.wire.inference OUTPUT`. Rounds interleave the protocols; the tables
have the median and the range of the rounds.
"""

from __future__ import annotations

import http.client
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from pooling_engine import ForwardCall, PoolSpec
from pooling_server.oip.messages import message_class
from pooling_wire import FORWARD

ROUNDS, ROUND_S = 7, 0.4
SHAPES = {"125 KB": (1, 10, 56, 56), "6.4 MB": (2, 64, 112, 112)}
SPEC = PoolSpec("max", 2)
_JSON_SIZE = "Inference-Header-Content-Length"
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
Call = Callable[[], Any]


def calls(channel: grpc.Channel, web: http.client.HTTPConnection, x: np.ndarray) -> dict[str, Call]:
    """Return one call per protocol; each sends a request that includes its serialization."""
    own = channel.unary_unary(FORWARD.path)
    inference = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    request = message_class("ModelInferRequest")(model_name="max_pool2d")
    request.parameters["kernel"].int64_param = 2
    request.inputs.add(name="input", datatype="FP32", shape=x.shape)
    request.raw_input_contents.append(x.tobytes())
    oip = request.SerializeToString()
    ours = FORWARD.encode_request(ForwardCall(x, SPEC))
    tensor = {"name": "input", "shape": list(x.shape), "datatype": "FP32"}
    record = {"parameters": {"kernel": 2, "binary_data_output": True}, "inputs": [tensor]}
    size = {"parameters": {"binary_data_size": x.nbytes}}
    head = json.dumps(record | {"inputs": [tensor | size]}).encode()
    binary = head + x.tobytes()
    text = json.dumps(
        {"parameters": {"kernel": 2}, "inputs": [tensor | {"data": x.ravel().tolist()}]}
    ).encode()

    def post(body: bytes, headers: dict[str, str]) -> bytes:
        web.request("POST", "/v2/models/max_pool2d/infer", body, headers)
        reply = web.getresponse()
        assert reply.status == 200
        return reply.read()

    return {
        "pooling.v1, unary": lambda: own(ours),
        "OIP, gRPC": lambda: inference(oip),
        "OIP, REST, binary": lambda: post(binary, {_JSON_SIZE: str(len(head))}),
        "OIP, REST, JSON": lambda: post(text, {}),
    }


def round_s(call: Call) -> float:
    """Return the median time of a call, over a round."""
    times: list[float] = []
    end = time.perf_counter() + ROUND_S
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(channel: grpc.Channel, web: http.client.HTTPConnection) -> dict[str, Any]:
    """Return the ratios and the times of each protocol, by size."""
    found: dict[str, Any] = {}
    for size, shape in SHAPES.items():
        x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        by_name = calls(channel, web, x)
        for call in by_name.values():
            call()
        rounds = [{name: round_s(call) for name, call in by_name.items()} for _ in range(ROUNDS)]
        first = next(iter(by_name))
        for name in by_name:
            ratios = sorted(each[name] / each[first] for each in rounds)
            found[f"{size}: {name}"] = {
                "ratio": statistics.median(ratios),
                "range": [ratios[0], ratios[-1]],
                "ms": statistics.median(each[name] for each in rounds) * 1e3,
            }
    return found


def main() -> None:
    """Start a server, measure, and write the figures."""
    command = [sys.executable, "-m", "pooling_server", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        [*command, "--http-listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        words = server.stdout.readline().replace(",", " ").split()
        address, web = words[words.index("on") + 1], words[words.index("HTTP") + 2]
        with grpc.insecure_channel(address, _OPTIONS) as channel:
            figures = measure(channel, http.client.HTTPConnection(web))
        server.terminate()
    result = {
        "command": "python -m benchmarks.wire.inference",
        "python": platform.python_version(),
        "grpcio": grpc.__version__,
        "cores": os.cpu_count(),
        "figures": figures,
    }
    Path(sys.argv[1]).write_text(json.dumps(result, indent=1) + "\n")
    for name, row in figures.items():
        low, high = row["range"]
        print(f"{name:28} {row['ratio']:.2f} ({low:.2f}-{high:.2f})  {row['ms']:.3f} ms")


if __name__ == "__main__":
    main()
