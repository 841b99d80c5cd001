"""Parts that the charts share: axes, legends, lines across a chart, and the frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pooling_loadtest.report.series import Rows

Spec = dict[str, Any]

SECONDS = {"title": "time since the start (s)", "type": "quantitative", "axis": {"grid": False}}


def y_axis(rows: Rows, fields: Sequence[str], scale: str) -> Spec:
    """Return scale and axis of y for the values of some fields.

    Args:
        rows: the data.
        fields: fields that y shows.
        scale: "linear" or "log".
    """
    if scale == "linear":
        return {"scale": {"zero": True, "nice": True}, "axis": {"tickCount": 5}}
    values = [row[field] for row in rows for field in fields if row.get(field)]
    is_decade = "abs(log(datum.value) / LN10 - round(log(datum.value) / LN10)) < 1e-6"
    domain = [float(f"{each:.4g}") for each in (min(values) / 1.2, max(values) * 1.2)]
    return {
        "scale": {"type": "log", "nice": False, "domain": domain},
        "axis": {
            "tickCount": 5,
            "format": ",~g",
            "gridOpacity": {"condition": {"test": is_decade, "value": 1}, "value": 0.35},
        },
    }


def rule(axis: str, at: float, text: str, field: str | None = None) -> Spec:
    """Return a dashed line across the chart with a text.

    Args:
        axis: "x" or "y".
        at: value on that axis.
        text: text beside the line.
        field: x: field of the chart's x axis, which the line inherits.
    """
    label = {"type": "text", "text": text, "color": "@red", "fontWeight": 600, "baseline": "bottom"}
    dashes = {"type": "rule", "color": "@red", "strokeDash": [5, 4], "strokeWidth": 1.5}
    if axis == "x":
        label |= {"align": "right", "dx": -6, "dy": 14}
        layers = [{"mark": dashes}, {"mark": label, "encoding": {"y": {"value": 0}}}]
        return {"data": {"values": [{field: at}]}, "layer": layers}
    y = {"y": {"datum": at, "type": "quantitative"}}
    layers = [
        {"mark": dashes, "encoding": y | {"x": None}},
        {"mark": label | {"align": "left"}, "encoding": y | {"x": {"value": 6}}},
    ]
    return {"data": {"values": [{}]}, "layer": layers}


def chart(rows: Rows, height: int, rest: Spec) -> Spec:
    """Return a chart as wide as its card.

    Args:
        rows: the data.
        height: height in pixels.
        rest: marks and encodings.
    """
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "data": {"values": _rounded(rows)},
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        **rest,
    }


def _rounded(rows: Rows) -> Rows:
    """Return rows with six significant digits, which keeps the file small."""
    return [
        {
            name: float(f"{value:.6g}") if isinstance(value, float) else value
            for name, value in row.items()
        }
        for row in rows
    ]
