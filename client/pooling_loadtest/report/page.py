"""The HTML page of the report."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

from pooling_loadtest.report import series, tables, text
from pooling_loadtest.report.charts import distribution, lines
from pooling_loadtest.report.charts.axes import Spec
from pooling_loadtest.report.charts.stages import stage_bars
from pooling_loadtest.report.figures import STAGES
from pooling_loadtest.report.metrics import metric_series
from pooling_loadtest.results import Results
from pooling_loadtest.runs import Objective
from pooling_loadtest.slo import parse_slo
from pooling_loadtest.texts import counted


class _Page:
    """Sections in order, and the specifications of their charts."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.specs: list[Spec] = []

    def chart(self, title: str, note: str, spec: Spec, wide: bool = False) -> None:
        """Add a card with a chart."""
        number = len(self.specs)
        self.specs.append(spec)
        self.card(title, note, f'<div class="chart" id="chart{number}"></div>', wide)

    def card(self, title: str, note: str, body: str, wide: bool = False) -> None:
        """Add a card."""
        kind = "card wide" if wide else "card"
        note = f'<p class="note">{escape(note)}</p>' if note else ""
        self.parts.append(f'<section class="{kind}"><h2>{escape(title)}</h2>{note}{body}</section>')


def page(results: Results, found: dict[str, Any], libraries: Callable[[], str]) -> str:
    """Return the report.

    Args:
        results: the load test.
        found: its figures.
        libraries: returns JavaScript that defines `vegaEmbed`; needs 100 MB, so called last.
    """
    body = _Page()
    _load_charts(body, results, found)
    _time_charts(body, results)
    _tables(body, results, found)
    run = results.run
    own = files("pooling_loadtest.report")
    specs = json.dumps(body.specs, separators=(",", ":")).replace("<", "\\u003c")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(run.title)}</title>
<link rel="icon" href="data:,">
<style>{(own / "page.css").read_text()}</style>
</head>
<body>
<header>
<h1>{escape(run.title.partition(": ")[0])}</h1>
<p class="load">{escape(text.load(run))}</p>
<p class="meta">{escape(_meta(results))}</p>
</header>
{_verdict(results, found)}
{_key_figures(results, found)}
<main>
{"".join(body.parts)}
</main>
<script type="application/json" id="specs">{specs}</script>
<script>{libraries()}</script>
<script>{(own / "page.js").read_text()}</script>
</body>
</html>
"""


def _meta(results: Results) -> str:
    run = results.run
    processes = counted(run.processes, "generator process", "generator processes")
    target = ", ".join(run.targets)
    return f"{run.elapsed_s:.1f} s · {run.protocol} · {target} · {processes} · {text.started(run)}"


def _verdict(results: Results, found: dict[str, Any]) -> str:
    grade, headline, sentences = text.verdict(results.run, found)
    items = "".join(f"<li>{escape(each)}</li>" for each in sentences)
    return f'<div class="verdict {grade}"><strong>{headline}</strong><ul>{items}</ul></div>'


def _key_figures(results: Results, found: dict[str, Any]) -> str:
    run, latency = results.run, found["latency_ms"]
    offered = (
        f"of {text.number(found['offered_per_s'])} offered" if run.loop == "open" else "answered"
    )
    by_name = {each["name"]: each for each in latency["percentiles"]}
    cells = [("calls/s", text.number(found["answered_per_s"]), offered)]
    for name in ("p50", "p99", "p99.9"):
        each = by_name.get(name)
        if each is None or each["ms"] is None:
            cells.append((name, "–", f"too few calls: {latency['calls']:,}"))
        else:
            cells.append(
                (name, text.ms(each["ms"]), f"{text.ms(each['low'])} to {text.ms(each['high'])}")
            )
    cells.append(("max", text.ms(latency["max"]), f"of {latency['calls']:,} answered"))
    percent = found["errors_percent"]
    cells.append(
        (
            "errors",
            f"{text.number(percent)} %" if percent else "0",
            counted(found["failed"], "call", "calls"),
        )
    )
    moved = found["sent_mb_per_s"] + found["received_mb_per_s"]
    cells.append(("MB/s", text.number(moved), "sent and received"))
    return (
        '<div class="figures">'
        + "".join(
            f'<div><span class="name">{name}</span><span class="value">{value}</span>'
            f'<span class="detail">{escape(detail)}</span></div>'
            for name, value, detail in cells
        )
        + "</div>"
    )


def _load_charts(body: _Page, results: Results, found: dict[str, Any]) -> None:
    rows, capacity = found["by_rate"], found["capacity"]
    if not rows:
        return
    if capacity:
        at = capacity["rate"] or None
        label = f"capacity {text.number(at, 4)} calls/s"
        from pooling_loadtest.summary import capacity_text

        note = f"Capacity: {capacity_text(capacity, results.run.slo)}."
    else:
        at = found["knee"]
        label = f"knee {text.number(at, 4)} calls/s"
        note = (
            "The knee is the highest rate before the first at which less than 95 % of the calls "
            "were answered in time, or the median was over five times the lowest."
        )
        if at is None:
            note = f"Already the lowest rate is beyond the knee. {note}"
        elif at == rows[-1]["rate"]:
            at, note = None, f"No knee up to {text.number(at, 4)} calls/s. {note}"
    body.chart("Latency against offered load", note, lines.latency_by_rate(rows, at, label))
    note = "Where the lines part, the server no longer keeps up."
    body.chart("Answered against offered load", note, lines.answered_by_rate(rows))


def _time_charts(body: _Page, results: Results) -> None:
    run, calls = results.run, results.calls
    ok = calls.is_ok
    is_open, elapsed_s = run.loop == "open", max(run.elapsed_s, 1e-3)
    latency_ms, at_ns = calls.latency_ns[ok] / 1e6, calls.scheduled_ns[ok]
    rates = series.rates(calls, elapsed_s)
    width = text.number(series.window_s(elapsed_s))
    since = "the time at which a call was due" if is_open else "sending"
    windows = f"Windows of {width} s."
    body.chart("Throughput", windows, lines.rate_lines(rates, is_open))
    if latency_ms.size:
        over_time = series.over_time(latency_ms, at_ns, elapsed_s)
        note = f"From {since} to its reply. Only percentiles that the calls of a window support."
        spec = lines.lines(over_time, lines.LATENCY_LINES, "latency (ms)", scale="log")
        body.chart("Latency over time", note, spec)
        curve = series.curve(latency_ms)
        note = "The band is the 95 % interval. The curve ends where the calls become too few."
        spec = distribution.percentile_curve(curve, _objective_ms(run.slo))
        body.chart("Latency by percentile", note, spec)
        note = f"From {since} to the reply, at the time at which the call began."
        spec = distribution.heat_map(series.heat_map(latency_ms, at_ns, elapsed_s))
        body.chart("Latency heat map", note, spec)
    fields = (("sent", "sent", "@blue"), ("received", "received", "@teal"))
    body.chart(
        "Bytes", f"Messages of answered calls. {windows}", lines.lines(rates, fields, "MB/s")
    )
    lag_ns = calls.lag_ns
    sent = lag_ns >= 0
    if is_open and np.any(sent):
        lag = series.over_time(lag_ns[sent] / 1e6, calls.scheduled_ns[sent], elapsed_s)
        note = "Delay from the time at which a call was due until it was sent."
        body.chart("Lag of the generator", note, lines.lines(lag, lines.LATENCY_LINES, "lag (ms)"))


def _tables(body: _Page, results: Results, found: dict[str, Any]) -> None:
    if found["stages_ms"]:
        note = "Mean times of answered calls, as the server reported them with each reply."
        body.chart("Where the time goes", note, stage_bars(found["stages_ms"], STAGES), wide=True)
    body.card("Kinds of calls", "", tables.kinds(found["kinds"]), wide=True)
    body.card("Percentiles", "With 95 % intervals.", tables.percentiles(found))
    body.card("Errors", "", tables.errors(found["errors"]))
    for title, rows in metric_series(results.server_metrics):
        body.chart(title, "", lines.metric(rows, "value"))
    body.card("Environment", "", tables.environment(results.run))
    command = escape(shlex.join(results.run.command))
    body.card("Command", "", f"<pre>{command}</pre>{tables.schedule(results.run)}")


def _objective_ms(slo: Objective | None) -> float | None:
    """Return the limit of the first latency of an objective."""
    terms = parse_slo(slo["text"]).terms if slo else ()
    return next((term.limit for term in terms if term.figure.startswith("p")), None)
