"""Charts of the report, as Vega-Lite specifications.

A colour such as "@blue" is a name that the page replaces by the colour of the light or dark scheme.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pooling_loadtest.report.series import Rows

Spec = dict[str, Any]
Lines = Sequence[tuple[str, str, str]]  # field, label, colour

_SECONDS = {"title": "time since the start (s)", "type": "quantitative", "axis": {"grid": False}}
_PERCENT_TICKS = [1, 2, 10, 100, 1000, 10000]
LATENCY_LINES = (
    ("p50", "p50", "@teal"),
    ("p90", "p90", "@blue"),
    ("p99", "p99", "@orange"),
    ("max", "max", "@faint"),
)


def lines(
    rows: Rows,
    fields: Lines,
    title: str,
    *,
    x: Spec | None = None,
    scale: str = "linear",
    points: bool = False,
    height: int = 240,
) -> Spec:
    """Return lines with a common tooltip at the nearest x.

    Args:
        rows: one row for each x, in wide form; None leaves a gap.
        fields: field, label and colour of each line.
        title: title of the y axis.
        x: encoding of the x axis; time by default.
        scale: "linear" or "log" y axis.
        points: mark each value.
        height: height in pixels.
    """
    x = {"field": "t", **_SECONDS} if x is None else x
    drawn = [each for each in fields if any(row.get(each[0]) is not None for row in rows)]
    labels, colours = [each[1] for each in drawn], [each[2] for each in drawn]
    layers: list[Spec] = [
        {
            "transform": [
                {"fold": [field for field, _, _ in drawn], "as": ["field", "value"]},
                {"calculate": _labels(drawn), "as": "line"},
                {"filter": "isValid(datum.value)"},
            ],
            "mark": {"type": "line", "interpolate": "linear", "strokeWidth": 2, "point": points},
            "encoding": {
                "y": {
                    "field": "value",
                    "type": "quantitative",
                    "title": title,
                    **_y_axis(rows, [field for field, _, _ in drawn], scale),
                },
                "color": {
                    "field": "line",
                    "type": "nominal",
                    "title": None,
                    "sort": labels,
                    "scale": {"domain": labels, "range": colours},
                    "legend": _legend() if len(drawn) > 1 else None,
                },
            },
        },
        {
            "params": [
                {
                    "name": "near",
                    "select": {
                        "type": "point",
                        "on": "pointerover",
                        "clear": "pointerout",
                        "encodings": ["x"],
                        "nearest": True,
                    },
                }
            ],
            "mark": {"type": "rule", "color": "@muted", "strokeDash": [3, 3]},
            "encoding": {
                "opacity": {"condition": {"param": "near", "empty": False, "value": 1}, "value": 0},
                "tooltip": [
                    {"field": x["field"], "type": "quantitative", "title": x["title"]},
                    *(
                        {"field": field, "type": "quantitative", "title": label, "format": ",.4~g"}
                        for field, label, _ in drawn
                    ),
                ],
            },
        },
    ]
    return _chart(rows, height, {"encoding": {"x": x}, "layer": layers})


def rate_lines(rows: Rows, is_open: bool) -> Spec:
    """Return offered, answered and failed calls/s over time."""
    fields = [("answered", "answered", "@blue")]
    if is_open:
        fields.insert(0, ("offered", "offered", "@faint"))
    if any(row["failed"] for row in rows):
        fields.append(("failed", "failed", "@red"))
    return lines(rows, fields, "calls/s")


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
    axis = _y_axis(rows, ("low", "ms", "high"), "log")
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
        layers.append(_rule("y", line_at, "objective"))
    return _chart(rows, 280, {"encoding": {"x": x}, "layer": layers})


def latency_by_rate(rows: Rows, knee: float | None, knee_label: str) -> Spec:
    """Return latency against the offered rate, with a line at the knee."""
    x = {
        "field": "rate",
        "type": "quantitative",
        "title": "offered load (calls/s)",
        "scale": {"zero": False, "nice": True},
        "axis": {"grid": False},
    }
    spec = lines(rows, LATENCY_LINES[:3], "latency (ms)", x=x, scale="log", points=True, height=280)
    if knee is not None:
        spec["layer"].append(_rule("x", knee, knee_label, field="rate"))
    return spec


def answered_by_rate(rows: Rows) -> Spec:
    """Return the calls/s that were answered in time against those offered."""
    x = {
        "field": "rate",
        "type": "quantitative",
        "title": "offered load (calls/s)",
        "axis": {"grid": False},
    }
    return lines(
        [row | {"ideal": row["rate"]} for row in rows],
        (("ideal", "offered", "@faint"), ("answered", "answered in time", "@blue")),
        "calls/s",
        x=x,
        points=True,
        height=280,
    )


def heat_map(rows: Rows) -> Spec:
    """Return the number of calls by time and latency."""
    x = {"field": "t", **_SECONDS}
    axis = _y_axis(rows, ("low", "high"), "log")
    return _chart(
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


def stage_bars(found: Sequence[dict[str, Any]], names: Sequence[str]) -> Spec:
    """Return stacked bars of mean times per stage."""
    rows = [
        {"calls": each["calls"], "stage": stage, "ms": value, "order": names.index(stage)}
        for each in found
        for stage, value in each["stages"].items()
    ]
    colours = ["@red", "@faint", "@orange", "@blue", "@teal"]
    return _chart(
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


def metric(rows: Rows, title: str) -> Spec:
    """Return a small chart of one metric of the server."""
    return lines(rows, (("value", title, "@blue"),), "", height=110)


def _legend() -> Spec:
    return {"orient": "top", "symbolType": "stroke", "symbolStrokeWidth": 3}


def _labels(fields: Lines) -> str:
    pairs = ", ".join(f"'{field}': '{label}'" for field, label, _ in fields)
    return f"{{{pairs}}}[datum.field]"


def _y_axis(rows: Rows, fields: Sequence[str], scale: str) -> Spec:
    """Return scale and axis of y for the values of some fields."""
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


def _rule(axis: str, at: float, text: str, field: str | None = None) -> Spec:
    """Return a dashed line across the chart with a text.

    Args:
        axis: "x" or "y".
        at: value on that axis.
        text: text beside the line.
        field: x: field of the chart's x axis, which the line inherits.
    """
    label = {"type": "text", "text": text, "color": "@red", "fontWeight": 600, "baseline": "bottom"}
    rule = {"type": "rule", "color": "@red", "strokeDash": [5, 4], "strokeWidth": 1.5}
    if axis == "x":
        label |= {"align": "right", "dx": -6, "dy": 14}
        layers = [{"mark": rule}, {"mark": label, "encoding": {"y": {"value": 0}}}]
        return {"data": {"values": [{field: at}]}, "layer": layers}
    y = {"y": {"datum": at, "type": "quantitative"}}
    layers = [
        {"mark": rule, "encoding": y | {"x": None}},
        {"mark": label | {"align": "left"}, "encoding": y | {"x": {"value": 6}}},
    ]
    return {"data": {"values": [{}]}, "layer": layers}


def _chart(rows: Rows, height: int, rest: Spec) -> Spec:
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
