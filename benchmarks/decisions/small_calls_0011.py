"""What a small call costs beside its arithmetic: stage by stage in one process, and over the wire.

The stages are those of a message that is like one before, and of one that is the first of its kind.
Over the wire, a server of ours that answers at once with the same bytes shows what handlers take.
The result is the evidence of docs/adr/0011.

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
import pooling_wire
from benchmarks import report
from benchmarks.wire import servers as wire_servers
from benchmarks.wire import suite
from benchmarks.wire import ways as wire_ways
from benchmarks.wire.__main__ import load
from pooling_client import PoolingClient, _channel
from pooling_server import ServerConfig
from pooling_server.serving.app import PoolingServer
from pooling_server.serving.executor import Executor
from pooling_server.serving.servicer import PoolingServicer
from pooling_wire.messages import decoding, encoding
from pooling_wire.payloads import tensors

Way = Callable[[], object]
PAYLOAD = suite.SEED
ROUNDS, CALLS = 9, 200
CALLERS, SECONDS = 16, 1.0
MESSAGES = (decoding.FORWARD_CALLS, decoding.FORWARD_RESULTS)
CACHES = (encoding._forward_head, tensors._tensor_start)


def forget() -> None:
    """Makes the next message the first of its kind; specs and plans stay known."""
    for messages in MESSAGES:
        messages.clear()
    for cache in CACHES:
        cache.cache_clear()


def stages() -> dict[str, Way]:
    """The parts of one call, on memory that is in the cache."""
    x, spec = PAYLOAD.tensor(), PAYLOAD.spec
    servicer = PoolingServicer(ServerConfig(), Executor(1, 1), "", None)  # no memory is shared
    call = pooling_wire.ForwardCall(x, spec)
    request = pooling_wire.encode_forward_request(call)
    reply = servicer.forward(request)
    result = pooling_engine.forward(x, spec)
    return {
        "client: encode": lambda: pooling_wire.encode_forward_request(call),
        "server: decode": lambda: pooling_wire.decode_forward_request(request),
        "server: engine": lambda: pooling_engine.forward(x, spec, out=result.output),
        "server: encode": lambda: pooling_wire.encode_forward_response(result),
        "server: all": lambda: servicer.forward(request),
        "client: decode": lambda: pooling_wire.decode_forward_response(reply),
    }


def microseconds(way: Way, before: Callable[[], None]) -> float:
    """Of one call, the median of many; `before` each, which is not counted."""
    taken = []
    for _ in range(CALLS):
        before()
        start = time.perf_counter()
        way()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1e6


def stage_rows() -> list[dict[str, object]]:
    ways = stages()
    befores = {"like one before": lambda: None, "first of its kind": forget}
    names = [f"{stage}, {kind}" for stage in ways for kind in befores]

    def measure(name: str) -> float:
        stage, _, kind = name.partition(", ")
        ways[stage]()
        return microseconds(ways[stage], befores[kind])

    taken = report.turns(names, ROUNDS, measure)
    return [
        {"stage": stage} | {kind: report.spread(taken[f"{stage}, {kind}"]) for kind in befores}
        for stage in ways
    ]


def serve_at_once() -> None:
    """Our server, but that its handlers answer with the same bytes at once."""
    reply = bytes(PAYLOAD.reply_bytes)
    PoolingServicer.forward = lambda self, request, regions=None: reply
    server = PoolingServer(ServerConfig(listen="127.0.0.1:0"))
    server.start()
    print(f"listening on {server.address},", flush=True)
    sys.stdin.read()
    server.stop()


def wire_rows() -> list[dict[str, object]]:
    x = PAYLOAD.tensor()
    request = pooling_wire.encode_forward_request(pooling_wire.ForwardCall(x, PAYLOAD.spec))
    with contextlib.ExitStack() as ends:
        others = ends.enter_context(wire_servers.other_server("grpc"))
        ours = ends.enter_context(wire_servers.pooling_server())
        at_once = ends.enter_context(
            wire_servers.started("-m", "benchmarks.decisions.small_calls_0011", "serve")
        )

        def channel(server: wire_servers.Server) -> grpc.Channel:
            options = _channel.CHANNEL_OPTIONS
            return ends.enter_context(grpc.insecure_channel(server.addresses[0], options=options))

        def bare(server: wire_servers.Server) -> Way:
            method = channel(server).unary_unary(_channel.FORWARD)
            return lambda: method(request, timeout=wire_ways.TIMEOUT_S)

        client = ends.enter_context(PoolingClient(ours.addresses[0], timeout=wire_ways.TIMEOUT_S))
        raw = channel(others)
        ways = {
            "raw echo": wire_ways.echo(PAYLOAD, raw),
            "our server, answering at once; bare stub": bare(at_once),
            "our server; bare stub": bare(ours),
            "our server and client": wire_ways.ours(PAYLOAD, x, client, wire_ways.NEVER),
            "textbook": wire_ways.textbook(PAYLOAD, x, raw),
        }
        for way in ways.values():
            report.samples(way, 50)

        def measure(name: str) -> tuple[float, float]:
            one = statistics.median(report.samples(ways[name], CALLS))
            return one, load([ways[name]] * CALLERS, SECONDS)[0]

        taken = report.turns(list(ways), ROUNDS, measure)
    echo = np.array(taken["raw echo"])
    return [
        {
            "way": name,
            "p50_ms": report.spread(one for one, _ in rounds),
            "times_echo": report.spread(np.array(rounds)[:, 0] / echo[:, 0]),
            "calls_per_s_at_16": report.spread(rate for _, rate in rounds),
            "of_echo_at_16": report.spread(np.array(rounds)[:, 1] / echo[:, 1]),
        }
        for name, rounds in taken.items()
    ]


def main() -> None:
    if sys.argv[1:] == ["serve"]:
        serve_at_once()
        return
    pooling_engine.warm_up()
    rows = {"stages_us": stage_rows(), "wire": wire_rows()}
    for row in (*rows["stages_us"], *rows["wire"]):
        print(row)
    command = "python -m benchmarks.decisions.small_calls_0011"
    print(f"wrote {report.write('small-calls', command, rows)}")


if __name__ == "__main__":
    main()
