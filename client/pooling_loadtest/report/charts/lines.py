"""Lines over time and over the offered load."""

from __future__ import annotations

from collections.abc import Sequence

from pooling_loadtest.report.charts.axes import SECONDS, Spec, chart, rule, y_axis
from pooling_loadtest.report.series import Rows

Lines = Sequence[tuple[str, str, str]]  # field, label, colour

LATENCY_LINES = (
    ("p50", "p50", "@teal"),
    ("p90", "p90", "@blue"),
    ("p99", "p99", "@orange"),
    ("max", "max", "@faint"),
)
_RATE = {"field": "rate", "title": "offered load (calls/s)", "type": "quantitative"}


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
    x = {"field": "t", **SECONDS} if x is None else x
    drawn = [each for each in fields if any(row.get(each[0]) is not None for row in rows)]
    y = {
        "field": "value",
        "type": "quantitative",
        "title": title,
        **y_axis(rows, [field for field, _, _ in drawn], scale),
    }
    mark = {"type": "line", "interpolate": "linear", "strokeWidth": 2, "point": points}
    layers = [
        {
            "transform": [
                {"fold": [field for field, _, _ in drawn], "as": ["field", "value"]},
                {"calculate": _labels(drawn), "as": "line"},
                {"filter": "isValid(datum.value)"},
            ],
            "mark": mark,
            "encoding": {"y": y, "color": _colours(drawn)},
        },
        _nearest(drawn, x),
    ]
    return chart(rows, height, {"encoding": {"x": x}, "layer": layers})


def rate_lines(rows: Rows, is_open: bool) -> Spec:
    """Return offered, answered and failed calls/s over time."""
    fields = [("answered", "answered", "@blue")]
    if is_open:
        fields.insert(0, ("offered", "offered", "@faint"))
    if any(row["failed"] for row in rows):
        fields.append(("failed", "failed", "@red"))
    return lines(rows, fields, "calls/s")


def latency_by_rate(rows: Rows, knee: float | None, knee_label: str) -> Spec:
    """Return latency against the offered rate, with a line at the knee."""
    x = _RATE | {"scale": {"zero": False, "nice": True}, "axis": {"grid": False}}
    spec = lines(rows, LATENCY_LINES[:3], "latency (ms)", x=x, scale="log", points=True, height=280)
    if knee is not None:
        spec["layer"].append(rule("x", knee, knee_label, field="rate"))
    return spec


def answered_by_rate(rows: Rows) -> Spec:
    """Return the calls/s that were answered in time against those offered."""
    return lines(
        [row | {"ideal": row["rate"]} for row in rows],
        (("ideal", "offered", "@faint"), ("answered", "answered in time", "@blue")),
        "calls/s",
        x=_RATE | {"axis": {"grid": False}},
        points=True,
        height=280,
    )


def metric(rows: Rows, title: str) -> Spec:
    """Return a small chart of one metric of the server."""
    return lines(rows, (("value", title, "@blue"),), "", height=110)


def _colours(drawn: Lines) -> Spec:
    """Return the colour of each line, with a legend for several."""
    labels = [label for _, label, _ in drawn]
    legend = {"orient": "top", "symbolType": "stroke", "symbolStrokeWidth": 3}
    return {
        "field": "line",
        "type": "nominal",
        "title": None,
        "sort": labels,
        "scale": {"domain": labels, "range": [colour for _, _, colour in drawn]},
        "legend": legend if len(drawn) > 1 else None,
    }


def _nearest(drawn: Lines, x: Spec) -> Spec:
    """Return a line at the x nearest to the pointer, with all values there as a tooltip."""
    select = {
        "type": "point",
        "on": "pointerover",
        "clear": "pointerout",
        "encodings": ["x"],
        "nearest": True,
    }
    values = [
        {"field": field, "type": "quantitative", "title": label, "format": ",.4~g"}
        for field, label, _ in drawn
    ]
    at = {"field": x["field"], "type": "quantitative", "title": x["title"]}
    return {
        "params": [{"name": "near", "select": select}],
        "mark": {"type": "rule", "color": "@muted", "strokeDash": [3, 3]},
        "encoding": {
            "opacity": {"condition": {"param": "near", "empty": False, "value": 1}, "value": 0},
            "tooltip": [at, *values],
        },
    }


def _labels(fields: Lines) -> str:
    pairs = ", ".join(f"'{field}': '{label}'" for field, label, _ in fields)
    return f"{{{pairs}}}[datum.field]"
