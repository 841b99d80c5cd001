"""Compare grpcio's threaded server with its asyncio server (ADR 1).

Both run the same handler (parse, 2x2 maximum pooling, serialise) in separate processes. One client
process alternates between them, at three sizes and three concurrencies.

    python -m benchmarks.decisions.server_kind_0001
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

import grpc
import numpy as np

from benchmarks import report
from pooling_wire.v1 import pooling_pb2 as pb

METHOD = "/pooling.v1.PoolingService/Forward"
UNLIMITED = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]
SHAPES = {"1 KB": (1, 1, 16, 16), "125 KB": (10, 16, 14, 14), "26 MB": (32, 64, 56, 56)}
CALLS = {"1 KB": 1500, "125 KB": 600, "26 MB": 12}
CONCURRENCIES = (1, 4, 16)
WORKERS = 2  # replies computed at a time, in either server


def answer(request: bytes) -> bytes:
    """Compute a reply the way the service does; both servers use this function."""
    tensor = pb.ForwardRequest.FromString(request).input
    x = np.frombuffer(tensor.data, dtype=np.float32).reshape(tensor.shape)
    rows = np.maximum(x[:, :, 0::2], x[:, :, 1::2])
    y = np.maximum(rows[..., 0::2], rows[..., 1::2])
    output = pb.Tensor(element_type=tensor.element_type, shape=y.shape, data=y.tobytes())
    return pb.ForwardResponse(output=output).SerializeToString()


class Handler(grpc.GenericRpcHandler):
    """Handler that serves every method with one function from bytes to bytes."""

    def __init__(self, behaviour) -> None:
        self._method = grpc.unary_unary_rpc_method_handler(behaviour)

    def service(self, handler_call_details):
        return self._method


def serve_threaded(ready: Connection) -> None:
    slots = threading.BoundedSemaphore(WORKERS)

    def behaviour(request, context):
        with slots:
            return answer(request)

    server = grpc.server(ThreadPoolExecutor(WORKERS + 16), options=UNLIMITED)
    server.add_generic_rpc_handlers((Handler(behaviour),))
    ready.send(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    ready.recv()
    server.stop(None).wait()


def serve_asyncio(ready: Connection) -> None:
    async def main() -> None:
        pool = ThreadPoolExecutor(WORKERS)
        loop = asyncio.get_running_loop()

        async def behaviour(request, context):
            return await loop.run_in_executor(pool, answer, request)

        server = grpc.aio.server(options=UNLIMITED)
        server.add_generic_rpc_handlers((Handler(behaviour),))
        ready.send(server.add_insecure_port("127.0.0.1:0"))
        await server.start()
        await loop.run_in_executor(None, ready.recv)
        await server.stop(None)

    asyncio.run(main())


SERVERS = {"threaded": serve_threaded, "asyncio": serve_asyncio}


def drive(call, request: bytes, calls: int, concurrency: int) -> tuple[float, np.ndarray]:
    """Make `calls` calls from `concurrency` threads; return calls/s and latencies in ms."""
    share = max(1, calls // concurrency)
    latencies = np.empty((concurrency, share))

    def work(row: np.ndarray) -> None:
        for i in range(share):
            start = time.perf_counter()
            call(request, timeout=60)
            row[i] = (time.perf_counter() - start) * 1e3

    threads = [threading.Thread(target=work, args=(row,)) for row in latencies]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return latencies.size / (time.perf_counter() - start), latencies.ravel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds

    spawn = multiprocessing.get_context("spawn")
    calls, pipes = {}, []
    for name, target in SERVERS.items():
        ours, theirs = spawn.Pipe()
        spawn.Process(target=target, args=(theirs,), daemon=True).start()
        channel = grpc.insecure_channel(f"127.0.0.1:{ours.recv()}", options=UNLIMITED)
        calls[name] = channel.unary_unary(METHOD)
        pipes.append(ours)

    rows = []
    for size, shape in SHAPES.items():
        x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        tensor = pb.Tensor(element_type=pb.ELEMENT_TYPE_FLOAT32, shape=shape, data=x.tobytes())
        request = pb.ForwardRequest(input=tensor).SerializeToString()
        for concurrency in CONCURRENCIES:
            samples = {name: [] for name in SERVERS}
            for round_ in range(rounds + 1):
                for name, call in calls.items():
                    rate, latency = drive(call, request, CALLS[size], concurrency)
                    if round_:
                        samples[name].append(
                            (rate, np.percentile(latency, 50), np.percentile(latency, 99))
                        )
            row = {"payload": size, "concurrency": concurrency}
            for name, values in samples.items():
                rate, p50, p99 = (report.spread(column) for column in zip(*values, strict=True))
                row[name] = {"calls_per_s": rate, "p50_ms": p50, "p99_ms": p99}
            ratios = [
                a[0] / t[0] for t, a in zip(samples["threaded"], samples["asyncio"], strict=True)
            ]
            row["asyncio_over_threaded"] = report.spread(ratios)
            print(row, flush=True)
            rows.append(row)
    for pipe in pipes:
        pipe.send(None)
    path = report.write("server-kind", "python -m benchmarks.decisions.server_kind_0001", rows)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
