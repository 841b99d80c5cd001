"""Measure the cost of a small call: each stage in one process, and complete calls (ADR 11).

Stages are measured with a cached and with a new message header. Among the complete calls, a server
that replies with fixed bytes shows the share of the handler.

    python -m benchmarks.decisions.small_calls_0011
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable

import grpc
import numpy as np

import pooling_engine
from benchmarks import report
from benchmarks.wire import servers as wire_servers
from benchmarks.wire import suite, transports
from benchmarks.wire.__main__ import load
from pooling_client import PoolingClient, _connection
from pooling_server import ServerConfig
from pooling_server.observability.metrics import Metrics
from pooling_server.serving.app import PoolingServer
from pooling_server.serving.byte_budget import ByteBudget
from pooling_server.serving.call_processor import CallProcessor, PreparedCall
from pooling_server.serving.rpcs import Rpc, Rpcs
from pooling_wire import FORWARD
from pooling_wire.messages import forward
from pooling_wire.payloads import tensors
from pooling_wire.shared_memory import NO_REGIONS

Call = Callable[[], object]
PAYLOAD = suite.SEED
ROUNDS, CALLS = 9, 200
CALLERS, SECONDS = 16, 1.0
MESSAGES = (FORWARD.request.cache, FORWARD.response.cache)
CACHES = (forward._request_head, tensors._tensor_start)


class Caller:
    """Client of the calls in this process."""

    def invocation_metadata(self) -> tuple[()]:
        """Return no metadata."""
        return ()

    def peer(self) -> str:
        """Return no address."""
        return ""


def forget() -> None:
    """Clear the header caches; specs and plans stay cached."""
    for messages in MESSAGES:
        messages.clear()
    for cache in CACHES:
        cache.cache_clear()


def stages() -> dict[str, Call]:
    """Return the stages of one call, on memory in the CPU cache."""
    x, spec = PAYLOAD.tensor(), PAYLOAD.spec
    calls, rpcs = CallProcessor(ServerConfig()), Rpcs(Metrics(), ByteBudget(1 << 40), None)

    def answer(message: bytes) -> bytes:
        work = Rpc(rpcs, FORWARD.name, Caller()).receive(len(message))
        reply = calls.prepare(FORWARD, work, message).answer(NO_REGIONS)
        work.succeed(len(reply))
        return reply

    call = pooling_engine.ForwardCall(x, spec)
    request = FORWARD.encode_request(call)
    reply = answer(request)
    result = pooling_engine.forward(x, spec)
    return {
        "client: encode": lambda: FORWARD.encode_request(call),
        "server: decode": lambda: FORWARD.decode_request(request),
        "server: engine": lambda: pooling_engine.forward(x, spec, out=result.output),
        "server: encode": lambda: FORWARD.encode_response(result),
        "server: all": lambda: answer(request),
        "client: decode": lambda: FORWARD.decode_response(reply),
    }


def microseconds(call: Call, before: Callable[[], None]) -> float:
    """Return the median time of many calls, each after an untimed call of `before`."""
    taken = []
    for _ in range(CALLS):
        before()
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1e6


def stage_rows() -> list[dict[str, object]]:
    calls = stages()
    befores = {"cached header": lambda: None, "new header": forget}
    names = [f"{stage}, {kind}" for stage in calls for kind in befores]

    def measure(name: str) -> float:
        stage, _, kind = name.partition(", ")
        calls[stage]()
        return microseconds(calls[stage], befores[kind])

    taken = report.interleaved(names, ROUNDS, measure)
    return [
        {"stage": stage} | {kind: report.spread(taken[f"{stage}, {kind}"]) for kind in befores}
        for stage in calls
    ]


def serve_fixed_reply() -> None:
    """Run our server with a handler that returns the same bytes for every request."""
    reply = bytes(PAYLOAD.reply_bytes)
    prepared = PreparedCall(0, lambda _: reply)
    CallProcessor.prepare = lambda self, *arguments: prepared
    CallProcessor.prepare_item = lambda self, *arguments: prepared
    server = PoolingServer(ServerConfig(listen="127.0.0.1:0"))
    server.start()
    print(f"listening on {server.address},", flush=True)
    sys.stdin.read()
    server.stop()


def wire_rows() -> list[dict[str, object]]:
    x = PAYLOAD.tensor()
    request = FORWARD.encode_request(pooling_engine.ForwardCall(x, PAYLOAD.spec))
    with contextlib.ExitStack() as ends:
        others = ends.enter_context(wire_servers.other_server("grpc"))
        ours = ends.enter_context(wire_servers.pooling_server())
        fixed = ends.enter_context(
            wire_servers.started("-m", "benchmarks.decisions.small_calls_0011", "serve")
        )

        def channel(server: wire_servers.Server) -> grpc.Channel:
            options = _connection.CHANNEL_OPTIONS
            return ends.enter_context(grpc.insecure_channel(server.addresses[0], options=options))

        def bare(server: wire_servers.Server) -> Call:
            method = channel(server).unary_unary(FORWARD.path)
            return lambda: method(request, timeout=transports.TIMEOUT_S)

        client = ends.enter_context(PoolingClient(ours.addresses[0], timeout=transports.TIMEOUT_S))
        raw = channel(others)
        calls = {
            "echo server": transports.echo(PAYLOAD, raw),
            "our server with a fixed reply, bare stub": bare(fixed),
            "our server, bare stub": bare(ours),
            "our server and client": transports.ours(PAYLOAD, x, client, transports.NEVER),
            "naive gRPC service": transports.naive(PAYLOAD, x, raw),
        }
        for call in calls.values():
            report.samples(call, 50)

        def measure(name: str) -> tuple[float, float]:
            one = statistics.median(report.samples(calls[name], CALLS))
            return one, load([calls[name]] * CALLERS, SECONDS)[0]

        taken = report.interleaved(list(calls), ROUNDS, measure)
    echo = np.array(taken["echo server"])
    return [
        {
            "transport": name,
            "p50_ms": report.spread(one for one, _ in rounds),
            "times_echo": report.spread(np.array(rounds)[:, 0] / echo[:, 0]),
            "calls_per_s_at_16": report.spread(rate for _, rate in rounds),
            "of_echo_at_16": report.spread(np.array(rounds)[:, 1] / echo[:, 1]),
        }
        for name, rounds in taken.items()
    ]


def main() -> None:
    if sys.argv[1:] == ["serve"]:
        serve_fixed_reply()
        return
    pooling_engine.warm_up()
    rows = {"stages_us": stage_rows(), "wire": wire_rows()}
    for row in (*rows["stages_us"], *rows["wire"]):
        print(row)
    command = "python -m benchmarks.decisions.small_calls_0011"
    print(f"wrote {report.write('small-calls', command, rows)}")


if __name__ == "__main__":
    main()
