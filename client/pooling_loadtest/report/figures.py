"""Figures of a load test, for its report and for `summary.json`."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from pooling_loadtest.calls import NO_STATUS, Calls, percentiles
from pooling_loadtest.report import series
from pooling_loadtest.results import Results
from pooling_loadtest.statistics import interval, is_supported

AT = (50.0, 90.0, 95.0, 99.0, 99.9, 99.99)
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode} | {NO_STATUS: "NO REPLY"}
STAGES = ("generator lag", "network and client", "server: queue", "server: compute", "server: rest")


def figures(results: Results) -> dict[str, Any]:
    """Return the figures of a load test; None for a percentile that its calls cannot support."""
    run, calls = results.run, results.calls
    elapsed_s = max(run.elapsed_s, 1e-9)
    ok = calls.is_ok
    rows = series.by_rate(run, calls)
    return {
        "title": run.title,
        "loop": run.loop,
        "calls": len(calls),
        "answered": int(np.count_nonzero(ok)),
        "failed": int(np.count_nonzero(~ok)),
        "elapsed_s": run.elapsed_s,
        "answered_per_s": float(np.count_nonzero(ok) / elapsed_s),
        "offered_per_s": float(len(calls) / max(min(run.duration_s, elapsed_s), 1e-9)),
        "sent_mb_per_s": float(calls.sent_bytes[ok].sum() / elapsed_s / 1e6),
        "received_mb_per_s": float(calls.received_bytes[ok].sum() / elapsed_s / 1e6),
        "errors_percent": 100 * float(np.mean(~ok)) if len(calls) else 0.0,
        "errors": _errors(calls),
        "latency_ms": latencies(calls.latency_ns[ok] / 1e6),
        "lag_ms": latencies(calls.lag_ns[calls.lag_ns >= 0] / 1e6) if run.loop == "open" else None,
        "kinds": [_kind(results, number) for number in range(len(run.kinds))],
        "stages_ms": stages(calls),
        "by_rate": rows,
        "knee": series.knee(rows) if rows else None,
        "capacity": run.capacity,
        "slo": run.slo,
        "verify": run.verify,
        "distortions": run.distortions,
        "stopped": run.stopped,
    }


def latencies(values_ms: NDArray[np.float64]) -> dict[str, Any]:
    """Return percentiles with their 95 % intervals, the mean and the extremes; in ms."""
    if not values_ms.size:
        return {"mean": None, "min": None, "max": None, "percentiles": [], "calls": 0}
    ordered = np.sort(values_ms)
    found = []
    for at in AT:
        supported = is_supported(at, ordered.size)
        value = float(percentiles(ordered, [at])[0]) if supported else None
        low, high = interval(ordered, at) if supported else (None, None)
        found.append({"name": f"p{at:g}", "ms": value, "low": low, "high": high})
    return {
        "mean": float(ordered.mean()),
        "min": float(ordered[0]),
        "max": float(ordered[-1]),
        "percentiles": found,
        "calls": int(ordered.size),
    }


def stages(calls: Calls) -> list[dict[str, Any]]:
    """Return the mean time of each stage: of all calls, of the slowest 10 %, and 1 %; in ms.

    Only calls with the server's timing count. The stages add up to the latency.
    """
    known = calls.is_ok & ~np.isnan(calls.total_us)
    latency_ms, lag_ms = calls.latency_ns[known] / 1e6, calls.lag_ns[known] / 1e6
    order = np.argsort(latency_ms)[::-1]
    total, queue, compute = (
        column[known].astype(np.float64) / 1e3
        for column in (calls.total_us, calls.queue_us, calls.compute_us)
    )
    parts = (lag_ms, latency_ms - lag_ms - total, queue, compute, total - queue - compute)
    found = []
    for name, share in (("all calls", 1.0), ("slowest 10 %", 0.1), ("slowest 1 %", 0.01)):
        rows = order[: int(order.size * share)]
        if rows.size < 10:
            continue
        means = {stage: float(part[rows].mean()) for stage, part in zip(STAGES, parts, strict=True)}
        found.append({"calls": name, "number": int(rows.size), "stages": means})
    return found


def status_name(code: int) -> str:
    """Return the name of a gRPC status code."""
    return _NAMES.get(code, str(code))


def _errors(calls: Calls) -> list[dict[str, Any]]:
    bad = ~calls.is_ok
    found = []
    for code in np.unique(calls.status[bad]):
        rows = bad & (calls.status == code)
        count = int(np.count_nonzero(rows))
        found.append(
            {
                "status": status_name(int(code)),
                "calls": count,
                "percent": 100 * count / len(calls),
                "first_s": float(calls.scheduled_ns[rows].min() / 1e9),
                "last_s": float(calls.scheduled_ns[rows].max() / 1e9),
            }
        )
    return sorted(found, key=lambda row: -row["calls"])


def _kind(results: Results, number: int) -> dict[str, Any]:
    run, kind = results.run, results.run.kinds[number]
    calls = results.calls
    mine = calls.kind == number
    ok, count = mine & calls.is_ok, int(np.count_nonzero(mine))
    return {
        "name": kind.name,
        "direction": kind.direction,
        "transport": kind.transport,
        "shape": list(kind.shape),
        "dtype": kind.dtype,
        "spec": kind.spec,
        "sent_bytes": kind.sent_bytes,
        "received_bytes": kind.received_bytes,
        "calls": count,
        "answered_per_s": float(np.count_nonzero(ok) / max(run.elapsed_s, 1e-9)),
        "errors_percent": 100 * (1 - np.count_nonzero(ok) / count) if count else 0.0,
        "latency_ms": latencies(calls.latency_ns[ok] / 1e6),
    }
