"""Metrics of one and of several processes, JSON logs with request ids, spans, SIGHUP."""

from __future__ import annotations

import json
import os
import re
import signal
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pooling_client import PoolingClient
from pooling_engine import ForwardCall, PoolingError, PoolSpec
from pooling_server.observability import tracing
from pooling_server.serving.rpcs import Rpc, Rpcs
from pooling_wire import FORWARD
from pooling_wire.v1 import pooling_pb2_grpc
from tests.server.support import rpc_context
from tests.support.processes import process
from tests.support.requests import forward
from tests.support.waiting import LIMIT_S, quiet_port, wait_until

FLAGS = ["--backend", "numpy", "--no-warm-up", "--listen", "127.0.0.1:0"]
NAMES = {
    "pooling_calls_total",
    "pooling_call_duration_seconds",
    "pooling_stage_duration_seconds",
    "pooling_received_bytes_total",
    "pooling_sent_bytes_total",
    "pooling_in_flight_calls",
    "pooling_in_flight_bytes",
    "pooling_refusals_total",
    "pooling_worker_restarts_total",
}


def scrape(port: int) -> dict[str, list[Any]]:
    """Return the samples of a Prometheus endpoint by name."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=LIMIT_S) as reply:
        text = reply.read().decode()
    samples: dict[str, list[Any]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append(sample)
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in samples} >= NAMES - {
        "pooling_refusals_total"
    }
    return samples


def value(samples: dict[str, list[Any]], name: str, **labels: str) -> float:
    return sum(
        sample.value for sample in samples.get(name, ()) if labels.items() <= sample.labels.items()
    )


def address_of(banner: str) -> str:
    return banner.split(" listening on ")[1].partition(",")[0]


def call_over_new_connections(address: str, count: int) -> None:
    for _ in range(count):
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(address, options) as channel:
            pooling_pb2_grpc.PoolingServiceStub(channel).Forward(forward(), timeout=LIMIT_S)


@pytest.mark.parametrize("workers", [1, 2])
def test_one_endpoint_has_the_metrics_of_all_workers(workers: int) -> None:
    port = quiet_port()
    flags = [*FLAGS, "--metrics-listen", f"127.0.0.1:{port}", "--workers", str(workers)]
    with process(*flags) as (_, banner):
        address = address_of(banner)
        call_over_new_connections(address, 8)
        with grpc.insecure_channel(address) as channel:
            stub = pooling_pb2_grpc.PoolingServiceStub(channel)
            invalid = forward()
            invalid.input.shape[0] = 7
            with pytest.raises(grpc.RpcError):
                stub.Forward(invalid)
        samples = scrape(port)
        assert value(samples, "pooling_calls_total", rpc="Forward", mode="max", code="OK") == 8
        assert value(samples, "pooling_calls_total", code="INVALID_ARGUMENT") == 1
        assert value(samples, "pooling_refusals_total", reason="INVALID_TENSOR") == 1
        assert value(samples, "pooling_call_duration_seconds_count", mode="max") == 8
        assert value(samples, "pooling_call_duration_seconds_bucket", mode="max", le="+Inf") == 8
        for stage in ("queue", "compute"):
            assert value(samples, "pooling_stage_duration_seconds_count", stage=stage) == 8
        assert value(samples, "pooling_stage_duration_seconds_sum", stage="compute") > 0
        assert value(samples, "pooling_received_bytes_total") == 9 * forward().ByteSize()
        assert value(samples, "pooling_sent_bytes_total") > 0
        assert value(samples, "pooling_in_flight_calls") == 0
        assert value(samples, "pooling_worker_restarts_total") == 0


def test_a_restart_is_counted_and_loses_no_past_calls() -> None:
    port = quiet_port()
    flags = [*FLAGS, "--metrics-listen", f"127.0.0.1:{port}", "--workers", "2"]
    with process(*flags) as (server, banner):
        call_over_new_connections(address_of(banner), 6)
        assert value(scrape(port), "pooling_calls_total") == 6
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        wait_until(lambda: value(scrape(port), "pooling_worker_restarts_total") == 1)
        assert value(scrape(port), "pooling_calls_total") == 6


def test_each_item_of_a_stream_counts_as_a_call() -> None:
    port = quiet_port()
    with process(*FLAGS, "--metrics-listen", f"127.0.0.1:{port}") as (_, banner):
        tensors = [np.ones((1, 1, 4, width), np.float32) for width in (4, 6, 8)]  # never joined
        with PoolingClient(address_of(banner)) as client:
            calls = [ForwardCall(x, PoolSpec("average", 2)) for x in tensors]
            assert len(list(client.forward_many(calls))) == 3
        samples = scrape(port)
        labels = {"rpc": FORWARD.stream_name, "mode": "average", "code": "OK"}
        assert value(samples, "pooling_calls_total", **labels) == 3


def test_json_logs_have_the_request_id() -> None:
    flags = [*FLAGS, "--log-format", "json", "--log-level", "info"]
    with process(*flags) as (server, banner):
        with grpc.insecure_channel(address_of(banner)) as channel:
            stub = pooling_pb2_grpc.PoolingServiceStub(channel)
            stub.Forward(forward(), metadata=(("x-request-id", 'a"b'),))
        server.terminate()
        _, log = server.communicate(timeout=LIMIT_S)
    records = [json.loads(line) for line in log.splitlines()]
    (record,) = [each for each in records if each.get("request_id") == 'a"b']
    assert record["level"] == "info"
    assert record["message"].startswith("Forward OK queue;dur=")


def test_text_logs_end_with_the_request_id() -> None:
    with process(*FLAGS, "--log-level", "info") as (server, banner):
        with grpc.insecure_channel(address_of(banner)) as channel:
            stub = pooling_pb2_grpc.PoolingServiceStub(channel)
            stub.Forward(forward(), metadata=(("x-request-id", "abc"),))
        server.terminate()
        _, log = server.communicate(timeout=LIMIT_S)
    assert re.search(r"Forward OK .* \[request abc\]$", log, re.M)


class Span:
    """Records what the server sets."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}
        self.has_ended = False

    def set_attributes(self, attributes: dict[str, Any]) -> None:
        self.attributes |= attributes

    def set_status(self, *_: object) -> None:
        pass

    def end(self) -> None:
        self.has_ended = True


def test_spans_continue_the_trace_of_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry import trace

    contexts, span = [], Span()

    class Tracer:
        def start_span(self, name: str, context: Any, **_: Any) -> Span:
            contexts.append((name, trace.get_current_span(context).get_span_context()))
            return span

    monkeypatch.setattr(tracing.trace, "get_tracer", lambda _: Tracer())
    rpcs = Rpcs(None, None, None)  # type: ignore[arg-type]
    rpcs.is_tracing = True
    traceparent = ("traceparent", "00-" + "1" * 32 + "-" + "2" * 16 + "-01")
    Rpc(rpcs, "Forward", rpc_context(traceparent, ("x-request-id", "abc"))).succeed()
    ((name, context),) = contexts
    assert name == "pooling.v1.PoolingService/Forward"
    assert f"{context.trace_id:x}" == "1" * 32
    assert span.attributes["x-request-id"] == "abc"
    assert span.attributes["rpc.grpc.status_code"] == "OK"
    assert span.has_ended


def pids(server: Any) -> set[str]:
    return set(Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split())


def test_sighup_restarts_the_workers_one_by_one_without_a_failed_call() -> None:
    x = np.ones((1, 1, 8, 8), np.float32)
    with process(*FLAGS, "--workers", "2") as (server, banner):
        before = pids(server)
        server.send_signal(signal.SIGHUP)
        with PoolingClient(address_of(banner), timeout=LIMIT_S, connections=4) as client:

            def is_renewed() -> bool:
                assert client.forward(x, PoolSpec("max", 2)).output.shape == (1, 1, 4, 4)
                now = pids(server)
                return len(now) == 2 and not now & before

            wait_until(is_renewed)
        server.terminate()
        _, log = server.communicate(timeout=LIMIT_S)
        assert server.returncode == 0
    assert "restarting the workers one by one" in log


def test_sighup_of_a_single_process_keeps_it_serving() -> None:
    with process(*FLAGS) as (server, banner):
        server.send_signal(signal.SIGHUP)
        with PoolingClient(address_of(banner), timeout=LIMIT_S) as client:
            client.info()
            with pytest.raises(PoolingError):
                client.forward(np.ones((1, 1)), PoolSpec("max", 2))
        server.terminate()
        assert server.wait(LIMIT_S) == 0


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--metrics-listen", "nowhere"], "must be one HOST:PORT"),
        (["--metrics-listen", "unix:/a"], "metrics_listen is 'unix:/a'; it must be one HOST:PORT"),
        (["--metrics-listen", "0.0.0.0:1"], "allow_plaintext"),
        (["--log-format", "xml"], "log_format is 'xml'; it must be text or json"),
        (["--metrics-listen", "192.0.2.1:1", "--allow-plaintext"], "cannot serve metrics at"),
    ],
)
def test_invalid_options_are_reported_in_one_line(flags: list[str], text: str) -> None:
    with process(*FLAGS, *flags) as (server, banner):
        assert banner == ""
        _, err = server.communicate(timeout=LIMIT_S)
    assert text in err
    assert "Traceback" not in err
