"""Series of the metrics that were read from the server during a load test."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import pairwise
from typing import Any

from pooling_loadtest.report.series import Rows

_LABELS = re.compile(r"\{.*\}$")
_LEFT_OUT = ("_bucket", "_created", "_info", "_start_time_seconds")
_MAX_CHARTS = 12


def metric_series(samples: list[dict[str, Any]]) -> list[tuple[str, Rows]]:
    """Return (title, rows of t and value) of the metrics that changed, at most 12.

    Labels are added up. Counters become rates.
    """
    totals = [
        (sample["at_s"], _without_labels(sample["samples"]))
        for sample in samples
        if sample["at_s"] >= 0
    ]
    names = sorted({name for _, values in totals for name in values})
    found = []
    for name in names:
        points = [(at, values[name]) for at, values in totals if name in values]
        if name.endswith(("_total", "_sum", "_count")):
            title = f"{name}, per second"
            rows = [
                {"t": at, "value": (value - before) / (at - since)}
                for (since, before), (at, value) in pairwise(points)
                if at > since
            ]
        else:
            title, rows = name, [{"t": at, "value": value} for at, value in points]
        if len({row["value"] for row in rows}) > 1:
            found.append((title, rows))
    return sorted(found, key=lambda each: _rank(each[0]))[:_MAX_CHARTS]


def _without_labels(samples: dict[str, float]) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for name, value in samples.items():
        bare = _LABELS.sub("", name)
        if not bare.endswith(_LEFT_OUT):
            sums[bare] += value
    return sums


def _rank(title: str) -> tuple[int, str]:
    """Return the place of a metric: the service's own come before those of the process."""
    first = ("pooling_", "process_")
    return next((n for n, start in enumerate(first) if title.startswith(start)), 9), title
