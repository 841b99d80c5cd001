"""Tables for the charts: calls in windows of time, in cells of latency, and by offered rate."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pooling_loadtest.calls import Calls, percentiles
from pooling_loadtest.runs import Run
from pooling_loadtest.statistics import highest_supported, interval, is_supported

Rows = list[dict[str, Any]]

_WIDTHS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 600, 1800, 3600)
_MAX_WINDOWS = 90
_CELLS_PER_DECADE = 12
_KEPT_UP, _SLOWER = 0.95, 5.0
LATENCIES = (("p50", 50.0), ("p90", 90.0), ("p99", 99.0))


def window_s(elapsed_s: float) -> float:
    """Return a round width in seconds that gives at most 90 windows."""
    return next((w for w in _WIDTHS_S if elapsed_s / w <= _MAX_WINDOWS), _WIDTHS_S[-1])


def rates(calls: Calls, elapsed_s: float) -> Rows:
    """Return calls/s and MB/s in windows: offered by scheduled time, the others by done time."""
    width = window_s(elapsed_s)
    count = max(1, round(elapsed_s / width))  # the last window is half to one and a half as wide
    ends = np.append(np.arange(1, count) * width, elapsed_s)
    ok, failed = calls.is_ok, ~calls.is_ok
    ended = np.where(calls.is_done, calls.done_ns, calls.scheduled_ns)
    columns = {
        "offered": _per_window(calls.scheduled_ns, width, count),
        "answered": _per_window(calls.done_ns[ok], width, count),
        "failed": _per_window(ended[failed], width, count),
        "sent": _per_window(calls.done_ns[ok], width, count, calls.sent_bytes[ok] / 1e6),
        "received": _per_window(calls.done_ns[ok], width, count, calls.received_bytes[ok] / 1e6),
    }
    return [
        {"t": n * width}
        | {name: float(column[n] / (ends[n] - n * width)) for name, column in columns.items()}
        for n in range(count)
    ]


def over_time(values_ms: NDArray[np.float64], at_ns: NDArray[np.int64], elapsed_s: float) -> Rows:
    """Return percentiles and the maximum of values in windows of the time at which they began.

    A percentile that a window cannot support is None.
    """
    width = window_s(elapsed_s)
    windows = (at_ns / (width * 1e9)).astype(np.int64)
    order = np.argsort(windows, kind="stable")
    values, windows = values_ms[order], windows[order]
    found, starts = np.unique(windows, return_index=True)
    rows = []
    for window, part in zip(found, np.split(values, starts[1:]), strict=True):
        row: dict[str, Any] = {"t": float(window * width), "max": float(part.max())}
        for name, at in LATENCIES:
            supported = is_supported(at, part.size)
            row[name] = float(percentiles(part, [at])[0]) if supported else None
        rows.append(row)
    return rows


def heat_map(latency_ms: NDArray[np.float64], at_ns: NDArray[np.int64], elapsed_s: float) -> Rows:
    """Return the number of calls in cells of time and logarithm of latency."""
    if not latency_ms.size:
        return []
    width = window_s(elapsed_s)
    levels = np.floor(np.log10(np.maximum(latency_ms, 1e-4)) * _CELLS_PER_DECADE)
    lowest, columns = int(levels.min()), (at_ns / (width * 1e9)).astype(np.int64)
    height = int(levels.max()) - lowest + 1
    cells, counts = np.unique(
        columns * height + (levels - lowest).astype(np.int64), return_counts=True
    )
    return [
        {
            "t": float(column * width),
            "end": float((column + 1) * width),
            "low": float(10 ** (level / _CELLS_PER_DECADE)),
            "high": float(10 ** ((level + 1) / _CELLS_PER_DECADE)),
            "calls": int(calls),
        }
        for column, level, calls in zip(
            cells // height, cells % height + lowest, counts, strict=True
        )
    ]


def curve(latency_ms: NDArray[np.float64]) -> Rows:
    """Return percentiles from 0 to at most 99.99 that the values support, with intervals.

    "x" is 1 / (1 - percentile / 100), for a logarithmic axis.
    """
    ordered = np.sort(latency_ms)
    if not ordered.size:
        return []
    end = min(99.99, highest_supported(ordered.size))
    rows = []
    for x in np.geomspace(1, 1 / (1 - end / 100), 121)[1:]:
        at = 100 * (1 - 1 / x)
        low, high = interval(ordered, at)
        rows.append(
            {
                "x": float(x),
                "percentile": float(at),
                "ms": float(percentiles(ordered, [at])[0]),
                "low": low,
                "high": high,
            }
        )
    return rows


def by_rate(run: Run, calls: Calls) -> Rows:
    """Return the latencies of each segment of a schedule with several rates, by rising rate."""
    segments = run.schedule.get("segments", ())
    if len({segment["rate"] for segment in segments}) < 2:
        return []
    rows = []
    scheduled_s, done_s, is_ok = calls.scheduled_ns / 1e9, calls.done_ns / 1e9, calls.is_ok
    for segment in segments:
        start_s, end_s = segment["start_s"], segment["end_s"]
        part = (scheduled_s >= start_s) & (scheduled_s < end_s)
        count = int(np.count_nonzero(part))
        if not count:
            continue
        ok = part & is_ok
        latency_ms = calls.latency_ns[ok] / 1e6
        in_time = ok & (done_s < end_s + 0.05 * (end_s - start_s))
        row: dict[str, Any] = {
            "rate": float(segment["rate"]),
            "calls": count,
            "answered": float(np.count_nonzero(in_time) / (end_s - start_s)),
            "kept_up": float(np.count_nonzero(in_time) / count),
            "errors": float(100 * (count - np.count_nonzero(ok)) / count),
        }
        for name, at in LATENCIES:
            supported = is_supported(at, latency_ms.size)
            row[name] = float(percentiles(latency_ms, [at])[0]) if supported else None
        rows.append(row)
    rows.sort(key=lambda row: row["rate"])
    return rows if len({row["rate"] for row in rows}) > 1 else []


def knee(rows: Rows) -> float | None:
    """Return the highest rate before the knee; None if already the lowest rate is beyond it.

    A rate is beyond the knee if less than 95 % of its calls were answered in time, or if its median
    latency is more than five times the lowest median.
    """
    medians = [row["p50"] for row in rows if row["p50"] is not None]
    limit = _SLOWER * min(medians, default=0.0)
    found = None
    for row in rows:
        if row["p50"] is None or row["p50"] > limit or row["kept_up"] < _KEPT_UP:
            return found
        found = row["rate"]
    return found


def _per_window(
    at_ns: NDArray[np.int64],
    width_s: float,
    count: int,
    weights: NDArray[np.float64] | None = None,
) -> NDArray[Any]:
    windows = np.clip((at_ns / (width_s * 1e9)).astype(np.int64), 0, count - 1)
    return np.bincount(windows, weights, count)
