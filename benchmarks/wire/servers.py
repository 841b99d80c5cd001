"""Servers of the benchmark, each a separate process that runs until its stdin ends.

    python -m benchmarks.wire.servers grpc
    python -m benchmarks.wire.servers flight

An echo reply has as many bytes as the first eight bytes of the request say. The naive methods parse
with the generated classes and pool with our engine.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

import pooling_engine
from benchmarks.wire import floats as wire_floats
from pooling_engine import PoolSpec
from pooling_wire.v1 import pooling_pb2 as pb

THREADS = 40  # as many as our server
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
SERVE = """
from pooling_server import ServerConfig
from pooling_server.processes.process import exit_process, run
exit_process(run(ServerConfig(**{})))
"""


class Server(NamedTuple):
    """Running server process.

    Attributes:
        addresses: its listening addresses.
    """

    addresses: list[str]
    pid: int


@contextlib.contextmanager
def started(*command: str) -> Iterator[Server]:
    """Start a server process, read its addresses from its first line, and end it afterwards."""
    process = subprocess.Popen(
        [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        banner = process.stdout.readline()
        found = re.search(r"listening on (.+?)(,|$)", banner)
        if found is None:
            sys.exit(f"{' '.join(command)} did not start: {banner!r}")
        yield Server(found[1].strip().split(" and "), process.pid)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdin.close()
        process.stdout.close()


@contextlib.contextmanager
def pooling_server(**options: Any) -> Iterator[Server]:
    """Start our server on a free port and on a Unix socket, in this order.

    It starts without the command line, which needs click.

    Args:
        options: fields of `ServerConfig`.
    """
    with tempfile.TemporaryDirectory(prefix="wire-") as folder:
        # Enough to share four tensors of the largest payload at once.
        room = {"max_tensor_bytes": 1 << 29, "shared_memory_bytes": 2 << 30}
        options = {"listen": f"127.0.0.1:0,unix:{folder}/pooling.sock"} | room | options
        with started("-c", SERVE.format(options)) as server:
            yield server


def other_server(kind: str) -> contextlib.AbstractContextManager[Server]:
    return started("-m", "benchmarks.wire.servers", kind)


@functools.lru_cache(maxsize=64)
def zeros(size: int) -> bytes:
    """Return `size` zero bytes."""
    return bytes(size)


def reply_to(request: bytes) -> bytes:
    return zeros(int.from_bytes(request[:8], "little"))


def naive(request: pb.ForwardRequest, _: object) -> pb.ForwardResponse:
    """Pool a tensor in a `bytes` field, as a tutorial would."""
    first = request.spec.sliding_windows.axes[0]
    spec = PoolSpec("max", first.kernel, first.stride, padding=first.padding_before)
    tensor = request.input
    y = pooling_engine.forward(np.frombuffer(tensor.data, np.float32).reshape(tensor.shape), spec)
    output = pb.Tensor(
        element_type=tensor.element_type, shape=y.output.shape, data=y.output.tobytes()
    )
    return pb.ForwardResponse(output=output)


def floats(request: Any, context: Any) -> Any:
    """Pool a tensor in `repeated float`, as a tutorial would; the metadata holds the padding."""
    padding = int(dict(context.invocation_metadata())["padding"])
    spec = PoolSpec("max", 3, 2, padding=padding)
    return wire_floats.encode(pooling_engine.forward(wire_floats.decode(request), spec).output)


def serve_grpc() -> None:
    import grpc

    methods = {
        "Echo": grpc.unary_unary_rpc_method_handler(lambda request, _: reply_to(request)),
        "EchoStream": grpc.stream_stream_rpc_method_handler(
            lambda requests, _: map(reply_to, requests)
        ),
        "Naive": grpc.unary_unary_rpc_method_handler(
            naive, pb.ForwardRequest.FromString, pb.ForwardResponse.SerializeToString
        ),
        "Floats": grpc.unary_unary_rpc_method_handler(
            floats, wire_floats.Floats.FromString, wire_floats.Floats.SerializeToString
        ),
    }
    server = grpc.server(ThreadPoolExecutor(THREADS), options=UNLIMITED)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    pooling_engine.warm_up()
    server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    sys.stdin.read()
    server.stop(None).wait()


def serve_flight() -> None:
    import pyarrow as arrow
    from pyarrow import flight

    class Echo(flight.FlightServerBase):
        def do_exchange(self, context, descriptor, reader, writer) -> None:
            schema = arrow.schema([("values", arrow.uint8())])
            writer.begin(schema)
            for chunk in reader:
                size = int(chunk.app_metadata.to_pybytes())
                values = arrow.Array.from_buffers(
                    arrow.uint8(), size, [None, arrow.py_buffer(zeros(size))]
                )
                writer.write_batch(arrow.RecordBatch.from_arrays([values], schema=schema))

    with Echo("grpc://127.0.0.1:0") as server:
        print(f"listening on 127.0.0.1:{server.port}", flush=True)
        waiting = threading.Thread(target=server.serve, daemon=True)
        waiting.start()
        sys.stdin.read()
        os._exit(0)


if __name__ == "__main__":
    {"grpc": serve_grpc, "flight": serve_flight}[sys.argv[1]]()
