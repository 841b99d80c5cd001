"""Pictures of the wire benchmark: throughput by payload, and latency under load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

from benchmarks.wire import suite

mpl.use("agg")
from matplotlib import pyplot

Row = dict[str, Any]
# Okabe and Ito's palette is safe for colour-blind readers; the markers differ as well.
OURS, OTHERS = "-", "--"
MARKS = {
    suite.LOCAL: ("*", "#000000", OURS),
    suite.SHARED: ("o", "#009E73", OURS),
    suite.SHARED_COPIED: ("D", "#56B4E9", OURS),
    suite.STREAM: ("s", "#0072B2", OURS),
    suite.UNARY: ("^", "#D55E00", OURS),
    suite.SHARED_STREAM: ("p", "#882255", OURS),
    suite.ECHO_STREAM: ("s", "#0072B2", OTHERS),
    suite.ECHO: ("^", "#D55E00", OTHERS),
    suite.FLIGHT: ("v", "#CC79A7", OTHERS),
    suite.NAIVE: ("P", "#E69F00", OTHERS),
    suite.FLOATS: ("X", "#777777", OTHERS),
}


def draw_throughput(rows: list[Row], path: Path) -> None:
    """Draw GB/s against the payload, one line per transport."""
    rows = [row for row in rows if row["what"] == "one call"]
    figure, axis = pyplot.subplots(figsize=(9, 5.4), layout="constrained")
    for transport in MARKS:
        own = [row for row in rows if row["transport"] == transport]
        points = [(row["request_bytes"] / 1e6, row["gb_per_s"]) for row in own]
        draw_line(axis, transport, points)
    axis.loglog()
    axis.set_xlabel("MB of the input tensor", fontsize=10)
    axis.set_ylabel("GB/s, request and reply", fontsize=10)
    tidy(axis)
    finish(figure, axis, path)


def draw_latency(rows: list[Row], path: Path) -> None:
    """Draw p50 and p99 against calls per second; lower right is better."""
    rows = [row for row in rows if row["what"] == "load"]
    payloads = list(dict.fromkeys(row["payload"] for row in rows))
    figure, axes = pyplot.subplots(
        1, len(payloads), figsize=(9, 5.4), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, payload in zip(axes[0], payloads, strict=True):
        for transport in MARKS:
            wanted = payload, transport
            own = [row for row in rows if (row["payload"], row["transport"]) == wanted]
            draw_line(axis, transport, [(row["calls_per_s"], row["p50_ms"]) for row in own])
            for row in own:
                axis.plot(
                    [row["calls_per_s"]] * 2,
                    [row["p50_ms"], row["p99_ms"]],
                    color=MARKS[transport][1],
                    linewidth=0.8,
                    alpha=0.4,
                )
        axis.set_yscale("log")
        axis.set_xlim(left=0)
        axis.set_title(payload, fontsize=11)
        tidy(axis)
    figure.supxlabel("calls per second; along a line 1, 4 and 16 threads", fontsize=10)
    axes[0][0].set_ylabel("milliseconds: p50; the thin line ends at p99", fontsize=10)
    finish(figure, axes[0][0], path)


def draw_line(axis: Any, transport: str, points: list[tuple[float, float]]) -> None:
    if points:
        marker, colour, line = MARKS[transport]
        axis.plot(
            *zip(*points, strict=True),
            line,
            marker=marker,
            color=colour,
            label=transport,
            markersize=6,
            linewidth=1.6,
            markerfacecolor=colour if line == OURS else "white",
        )


def tidy(axis: Any) -> None:
    for each in (axis.xaxis, axis.yaxis):
        each.set_major_formatter("{x:g}")
        each.set_minor_formatter("")
    axis.grid(color="#e8e8e8", linewidth=0.7)
    axis.spines[["top", "right"]].set_visible(False)


def finish(figure: Any, axis: Any, path: Path) -> None:
    handles = axis.get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=3, frameon=False, fontsize=10)
    figure.savefig(path, dpi=200)
    pyplot.close(figure)
