"""Figures in hand-written tables equal the committed results that the documents name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"
Spread = dict[str, float]


def result(name: str) -> Any:
    """Return the content of a result file."""
    return json.loads((RESULTS / name).read_text())


def document(name: str) -> str:
    """Return the text of a document in `docs/`."""
    return (ROOT / "docs" / name).read_text()


def row(*cells: str) -> str:
    """Return the line of a table."""
    return f"| {' | '.join(cells)} |\n"


def two_decimals(spread: Spread) -> str:
    """Return a median with its range, each with two decimals."""
    return f"{spread['median']:.2f} ({spread['min']:.2f}-{spread['max']:.2f})"


def three_digits(spread: Spread) -> str:
    """Return a median with its range, each with three significant digits."""
    return f"{spread['median']:.3g} ({spread['min']:.3g}-{spread['max']:.3g})"


def test_the_scenarios() -> None:
    page = document("load-testing.md")
    for each in result("loadtest-scenarios.json")["rows"]:
        name, verify = each["scenario"], each["verify"]
        link = f"[{name}](../benchmarks/results/loadtest-{name}.png)"
        counts = f"{each['calls']:,}", str(each["failed"]), f"{each['sent_mb_per_s']:.0f}"
        assert row(link, *counts, f"{verify['checked']}, {verify['wrong']}") in page


def test_the_comparison_with_h2load() -> None:
    page = document("load-testing.md")
    for each in result("loadtest-h2load.json")["rows"]:
        rates = each["h2load_calls_per_s"]["median"], each["ours_calls_per_s"]["median"]
        cells = each["server"], str(each["callers"]), *(f"{rate:,.0f}" for rate in rates)
        assert row(*cells, f"{each['ratio']['median']:.2f}") in page


def test_the_generator_of_load() -> None:
    page = document("adr/0020-load-generator.md")
    small, large = (
        {each["loop"]: each for each in result(name)["rows"] if each["callers"] == 16}
        for name in ("loadtest-12.5KB.json", "loadtest-125KB.json")
    )
    for loop in ("generator", "generator, shared stream", "generator, two processes"):
        figures = [
            two_decimals(each[loop][key])
            for each in (small, large)
            for key in ("relative", "relative_cpu")
        ]
        assert row(f"**{loop}**" if loop == "generator" else loop, *figures) in page


def test_the_open_inference_protocol() -> None:
    page = document("adr/0021-open-inference-protocol.md")
    figures = result("open-inference.json")["figures"]
    for protocol in ("gRPC", "REST, binary", "REST, JSON"):
        cells = []
        for size in ("125 KB", "6.4 MB"):
            each = figures[f"{size}: OIP, {protocol}"]
            digits = 0 if each["ratio"] > 10 else 2
            low, high = each["range"]
            cells.append(f"{each['ratio']:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})")
        assert row(f"OIP over {protocol}", *cells) in page


def test_the_http_endpoint() -> None:
    page = document("adr/0022-http-endpoint.md")
    rows = result("http.json")["rows"]
    for tensor in dict.fromkeys(each["tensor"] for each in rows):
        grpc, *others = (each for each in rows if each["tensor"] == tensor)
        ratios = (three_digits(each["times_grpc"]) for each in others)
        assert row(tensor, three_digits(grpc["p50_ms"]), *ratios) in page


def test_shared_memory() -> None:
    page = document("adr/0010-shared-memory.md")
    rows = {each["transport"]: each for each in result("shared-memory.json")["rows"]}
    for transport, label in (("shared stream", "over a stream"), ("unary call", "unary call")):
        spread = rows[transport]["over_engine_ms"]
        figures = f"{spread['median']:.2f} ({spread['min']:.2f} to {spread['max']:.2f})"
        assert row(label, figures) in page


def test_the_memory_of_idle_clients() -> None:
    page = " ".join(document("configuration.md").split())
    rows = {each["of"]: each for each in result("load.json")["rows"] if each["what"] == "idle"}
    kib = {
        of: 1024 * (each["with"]["resident_mib"] - each["before"]["resident_mib"]) / each["count"]
        for of, each in rows.items()
    }
    assert f"An idle connection takes about {kib['connections']:.0f} KiB" in page
    assert f"an idle stream about {kib['streams']:.0f} KiB" in page
