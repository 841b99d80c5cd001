"""Prometheus endpoint: the metrics of all processes of a server at one address."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pooling_server.observability.metrics import BOUNDS_S, Numbers

try:
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )
except ImportError:
    start_http_server = None  # type: ignore[assignment]

_BOUNDS = (*map(str, BOUNDS_S), "+Inf")


class Exposition:
    """HTTP server for Prometheus.

    Args:
        address: HOST:PORT to listen on.
        read: returns the numbers of all processes, and the number of worker restarts; called from
            another thread for every scrape.

    Raises:
        OSError: the address cannot be bound, or prometheus-client is not installed.
    """

    def __init__(self, address: str, read: Callable[[], tuple[Numbers, int]]) -> None:
        if start_http_server is None:
            raise OSError("metrics_listen needs prometheus-client (the extra 'metrics')")
        self._read = read
        registry = CollectorRegistry()
        registry.register(self)
        host, _, port = address.rpartition(":")
        try:
            self._server, _ = start_http_server(int(port), host.strip("[]"), registry)
        except OSError as error:
            why = error.strerror or error
            raise OSError(f"cannot serve metrics at {address}: {why}") from None

    @property
    def port(self) -> int:
        """The port, if port 0 selected a free one."""
        return int(self._server.server_port)

    def stop(self) -> None:
        """End the HTTP server."""
        self._server.shutdown()
        self._server.server_close()

    def describe(self) -> list[Any]:
        """Return no description: registration would otherwise call `collect`."""
        return []

    def collect(self) -> Iterator[Any]:
        """Yield the metric families; `prometheus_client` calls this for every scrape."""
        numbers, restarts = self._read()
        calls = CounterMetricFamily(
            "pooling_calls",
            "Calls and stream items, by status code.",
            labels=["rpc", "mode", "code"],
        )
        durations = HistogramMetricFamily(
            "pooling_call_duration_seconds",
            "Time from the arrival of a message until its reply is built.",
            labels=["rpc", "mode"],
        )
        by_mode: dict[tuple[str, str], list[float]] = {}
        for (rpc, mode, code), histogram in sorted(numbers.calls.items()):
            calls.add_metric([rpc, mode, code], sum(histogram[:-1]))
            before = by_mode.get((rpc, mode), [0.0] * len(histogram))
            by_mode[rpc, mode] = [a + b for a, b in zip(before, histogram, strict=True)]
        for labels, histogram in by_mode.items():
            _add(durations, list(labels), histogram)
        stages = HistogramMetricFamily(
            "pooling_stage_duration_seconds", "Time of a stage of a call.", labels=["stage"]
        )
        for stage, histogram in numbers.stages.items():
            _add(stages, [stage], histogram)
        refusals = CounterMetricFamily(
            "pooling_refusals", "Calls and stream items that failed, by reason.", labels=["reason"]
        )
        for reason, count in sorted(numbers.refusals.items()):
            refusals.add_metric([reason], count)
        yield from (calls, durations, stages, refusals)
        for name, text, value in (
            ("pooling_received_bytes", "Bytes of requests.", numbers.received_bytes),
            ("pooling_sent_bytes", "Bytes of replies.", numbers.sent_bytes),
            ("pooling_worker_restarts", "Restarts of workers.", restarts),
        ):
            yield CounterMetricFamily(name, text, value=value)
        for name, text, value in (
            ("pooling_in_flight_calls", "Calls in flight.", numbers.in_flight_calls),
            (
                "pooling_in_flight_bytes",
                "Bytes of calls of more than 64 KiB in flight.",
                numbers.in_flight_bytes,
            ),
        ):
            yield GaugeMetricFamily(name, text, value=value)


def _add(family: Any, labels: list[str], histogram: list[float]) -> None:
    """Add a histogram; Prometheus counts each bucket with those below it."""
    total, buckets = 0.0, []
    for bound, count in zip(_BOUNDS, histogram[:-1], strict=True):
        total += count
        buckets.append((bound, total))
    family.add_metric(labels, buckets, histogram[-1])
