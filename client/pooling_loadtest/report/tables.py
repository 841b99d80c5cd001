"""Tables of the report, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from pooling_loadtest.report import text
from pooling_loadtest.runs import Run


def kinds(rows: Sequence[dict[str, Any]]) -> str:
    """Return the kinds of calls."""
    head = ("kind", "call", "input", "layer", "request", "reply", "calls/s", "p50", "p99", "errors")
    body = []
    for row in rows:
        found = {each["name"]: each["ms"] for each in row["latency_ms"]["percentiles"]}
        shape = " × ".join(map(str, row["shape"]))
        body.append(
            (
                row["name"],
                f"{row['direction']}, {row['transport'].replace('_', ' ')}",
                f"{row['dtype']} {shape}",
                ", ".join(f"{name} {value}" for name, value in row["spec"].items()),
                text.size(row["sent_bytes"]),
                text.size(row["received_bytes"]),
                text.number(row["answered_per_s"]),
                text.ms(found.get("p50")),
                text.ms(found.get("p99")),
                f"{text.number(row['errors_percent'])} %",
            )
        )
    return _table(head, body, left=4)


def percentiles(found: dict[str, Any]) -> str:
    """Return latency and lag with their intervals."""
    head = ["", "latency", "95 % interval"]
    latency, lag = found["latency_ms"], found["lag_ms"]
    if lag is not None:
        head.append("generator lag")
    rows: list[list[str]] = []
    for number, each in enumerate(latency["percentiles"]):
        known = each["ms"] is not None
        between = f"{text.ms(each['low'])} to {text.ms(each['high'])}" if known else "too few calls"
        rows.append([each["name"], text.ms(each["ms"]), between])
        if lag is not None:
            rows[-1].append(text.ms(lag["percentiles"][number]["ms"]) if lag["calls"] else "–")
    for name in ("max", "mean", "min"):
        rows.append([name, text.ms(latency[name]), ""])
        if lag is not None:
            rows[-1].append(text.ms(lag[name]))
    return _table(head, rows)


def errors(rows: Sequence[dict[str, Any]]) -> str:
    """Return the errors by status."""
    if not rows:
        return '<p class="none">Every call was answered.</p>'
    head = ("status", "calls", "share", "first at", "last at")
    return _table(
        head,
        [
            (
                row["status"],
                f"{row['calls']:,}",
                f"{text.number(row['percent'])} %",
                f"{row['first_s']:.2f} s",
                f"{row['last_s']:.2f} s",
            )
            for row in rows
        ],
    )


def environment(run: Run) -> str:
    """Return hardware and versions of the generator, and the server's answers about itself."""
    versions = run.environment.get("versions", {})
    rows: list[tuple[str, Any]] = [
        (f"generator: {name}", value)
        for name, value in run.environment.items()
        if name != "versions"
    ]
    rows += [(name, value) for name, value in versions.items() if value]
    for name, value in (run.server_info or {}).items():
        if isinstance(value, (list, tuple)):
            value = ", ".join(_item(each) for each in value)
        if not isinstance(value, dict) and value not in ("", None):
            rows.append((f"server: {name.replace('_', ' ')}", value))
    return _pairs(rows)


def _item(value: Any) -> str:
    """Return an item of a list as text; of a backend, its name and its devices."""
    if not isinstance(value, dict) or "name" not in value:
        return str(value)
    devices = value.get("devices")
    return f"{value['name']} ({'; '.join(map(str, devices))})" if devices else str(value["name"])


def schedule(run: Run) -> str:
    """Return the settings that make a run repeatable."""
    checked = f"{run.verify['checked']:,} ({100 * run.verify['fraction']:.3g} % asked for)"
    rows: list[tuple[str, Any]] = [
        ("seed", run.seed),
        ("planned duration", f"{run.duration_s:g} s"),
        ("calls in flight, at most", f"{run.max_in_flight:,}"),
        ("replies checked", checked),
        ("wrong replies", f"{run.verify['wrong']:,}"),
    ]
    return _pairs(rows)


def _pairs(rows: Sequence[tuple[str, Any]]) -> str:
    items = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in rows
    )
    return f'<div class="scroll"><table class="pairs">{items}</table></div>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    def row(tag: str, cells: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{'' if n < left else ' class=num'}>{escape(cell)}</{tag}>"
            for n, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{row('td', each)}</tr>" for each in rows)
    return f'<div class="scroll"><table><tr>{row("th", head)}</tr>{body}</table></div>'
