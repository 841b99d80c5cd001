"""Bars of the mean time that each stage of a call takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pooling_loadtest.report.charts.axes import Spec, chart


def stage_bars(found: Sequence[dict[str, Any]], names: Sequence[str]) -> Spec:
    """Return stacked bars of mean times per stage."""
    rows = [
        {"calls": each["calls"], "stage": stage, "ms": value, "order": names.index(stage)}
        for each in found
        for stage, value in each["stages"].items()
    ]
    colours = ["@red", "@faint", "@orange", "@blue", "@teal"]
    return chart(
        rows,
        46 * len(found) + 10,
        {
            "mark": {"type": "bar", "height": 26},
            "encoding": {
                "y": {
                    "field": "calls",
                    "type": "nominal",
                    "title": None,
                    "sort": [each["calls"] for each in found],
                    "axis": {"ticks": False, "domain": False, "labelPadding": 8, "grid": False},
                },
                "x": {
                    "field": "ms",
                    "type": "quantitative",
                    "title": "mean time (ms)",
                    "stack": "zero",
                    "axis": {"tickCount": 6},
                },
                "color": {
                    "field": "stage",
                    "type": "nominal",
                    "title": None,
                    "scale": {"domain": list(names), "range": colours},
                    "legend": {
                        "orient": "top",
                        "symbolType": "square",
                        "columns": {"signal": "width < 420 ? 2 : 5"},
                    },
                },
                "order": {"field": "order", "type": "quantitative"},
                "tooltip": [
                    {"field": "calls"},
                    {"field": "stage"},
                    {"field": "ms", "title": "mean ms", "format": ",.4~g"},
                ],
            },
        },
    )
