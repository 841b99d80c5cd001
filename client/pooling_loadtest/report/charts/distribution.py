"""Distribution of the latency: the curve of percentiles, and the heat map."""

from __future__ import annotations

from pooling_loadtest.report.charts.axes import SECONDS, Spec, chart, rule, y_axis
from pooling_loadtest.report.series import Rows

_PERCENT_TICKS = [1, 2, 10, 100, 1000, 10000]


def percentile_curve(rows: Rows, line_at: float | None) -> Spec:
    """Return latency against percentile, with its 95 % interval, on an axis of nines."""
    end = rows[-1]["x"]
    ticks = [each for each in _PERCENT_TICKS if each <= end * 1.02]
    label = (
        "{'1':'0 %','2':'50 %','10':'90 %','100':'99 %','1000':'99.9 %','10000':'99.99 %'}"
        "[format(datum.value, '.0f')]"
    )
    x = {
        "field": "x",
        "type": "quantitative",
        "title": "percentile of the answered calls",
        "scale": {"type": "log", "domain": [1, max(end, 10)], "nice": False},
        "axis": {"values": ticks, "labelExpr": label, "grid": True},
    }
    tooltip = [
        {"field": "percentile", "type": "quantitative", "format": ".4~f", "title": "percentile"},
        {"field": "ms", "type": "quantitative", "format": ",.4~g", "title": "ms"},
        {"field": "low", "type": "quantitative", "format": ",.4~g", "title": "95 % from"},
        {"field": "high", "type": "quantitative", "format": ",.4~g", "title": "95 % to"},
    ]
    axis = y_axis(rows, ("low", "ms", "high"), "log")
    y = {"field": "ms", "type": "quantitative", "title": "latency (ms)", **axis}
    layers: list[Spec] = [
        {
            "mark": {"type": "area", "color": "@blue", "opacity": 0.18},
            "encoding": {"y": y | {"field": "low"}, "y2": {"field": "high"}},
        },
        {"mark": {"type": "line", "color": "@blue", "strokeWidth": 2.5}, "encoding": {"y": y}},
        {
            "mark": {"type": "point", "size": 140, "opacity": 0},
            "encoding": {"y": y, "tooltip": tooltip},
        },
    ]
    if line_at is not None:
        layers.append(rule("y", line_at, "objective"))
    return chart(rows, 280, {"encoding": {"x": x}, "layer": layers})


def heat_map(rows: Rows) -> Spec:
    """Return the number of calls by time and latency."""
    x = {"field": "t", **SECONDS}
    axis = y_axis(rows, ("low", "high"), "log")
    return chart(
        rows,
        280,
        {
            "mark": {"type": "rect", "strokeWidth": 0},
            "encoding": {
                "x": x,
                "x2": {"field": "end"},
                "y": {"field": "low", "type": "quantitative", "title": "latency (ms)", **axis},
                "y2": {"field": "high"},
                "color": {
                    "field": "calls",
                    "type": "quantitative",
                    "scale": {
                        "type": "symlog" if max(row["calls"] for row in rows) > 20 else "linear",
                        "range": ["@heat0", "@heat1", "@heat2", "@heat3"],
                        "interpolate": "lab",
                    },
                    "legend": {
                        "orient": "top",
                        "title": "calls in a cell",
                        "titleOrient": "left",
                        "gradientLength": 140,
                        "gradientThickness": 10,
                        "tickCount": 3,
                        "format": ",d",
                    },
                },
                "tooltip": [
                    {"field": "t", "title": "from (s)", "format": ",.4~g"},
                    {"field": "low", "title": "from (ms)", "format": ",.3~g"},
                    {"field": "high", "title": "to (ms)", "format": ",.3~g"},
                    {"field": "calls", "title": "calls", "format": ",d"},
                ],
            },
        },
    )
