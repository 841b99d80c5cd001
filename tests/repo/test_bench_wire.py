"""The wire benchmark: goals, tables, pictures and result files; no time is asserted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.internal import wire_format
from PIL import Image

from benchmarks import report
from benchmarks.wire import __main__ as bench_wire
from benchmarks.wire import floats as wire_floats
from benchmarks.wire import goals as wire_goals
from benchmarks.wire import plot as wire_plot
from benchmarks.wire import report as wire_report
from benchmarks.wire import shared_memory, suite

MIB = 1 << 20


def call(transport: str, *rounds: float, payload: suite.Payload = suite.LAYER) -> dict[str, Any]:
    row = {"what": "one call", "group": payload.name, "transport": transport}
    row |= {"rounds": list(rounds)}
    row |= {"request_bytes": payload.request_bytes, "reply_bytes": payload.reply_bytes}
    return row | {"p99_ms": max(rounds), "gb_per_s": 1.5}


def load(transport: str, rate: float, concurrency: int = 16) -> dict[str, Any]:
    row = {"what": "load", "group": f"125 KB at {concurrency}", "transport": transport}
    row |= {"rounds": [rate]}
    row |= {"payload": "125 KB", "concurrency": concurrency, "calls_per_s": rate}
    return row | {"p50_ms": 1.0, "p99_ms": 2.0}


def memory(end: str, payload: suite.Payload, mib: float) -> dict[str, Any]:
    row = {"what": "memory", "end": end, "payload": payload.name, "transport": "ours"}
    return row | {"above_idle_bytes": [int(mib * MIB)], "request_bytes": payload.request_bytes}


def copy(name: str, ms: float) -> dict[str, Any]:
    return {"what": "copy", "group": suite.LAYER.name, "transport": name, "rounds": [ms]}


def results(**rows: dict[str, Any]) -> wire_goals.Results:
    """Return the rows of the three result files, one row at most in each."""
    return {name: [rows[name]] if name in rows else [] for name in wire_goals.SOURCES}


def spread(median: float) -> dict[str, float]:
    return {"median": median, "min": median / 2, "max": median * 2}


def caller(load: str, client: str = "ours (shared stream)", size: str = "12.5 KB") -> Any:
    row = {"payload": size, "load": load, "client": client}
    return lambda ratio: {"callers": row | {"relative": spread(ratio)}}


def under_load(name: str, **row: str) -> Any:
    return lambda value: {"load": row | {name: spread(value)}}


H2LOAD = {"what": "throughput", "load": "16 connections"}
SMALL = "12.5 KB calls beside two callers of 26 MB"
HEALTH = "health checks beside 16 saturating callers"
GOALS = [  # start of the goal, its row, a value that just meets the goal, and one that misses it
    ("12.5 KB, h2load, 16 conn", under_load("ratio", size="12.5 KB", **H2LOAD), 1.8, 1.79),
    ("125 KB, h2load, 16 conn", under_load("ratio", size="125 KB", **H2LOAD), 1.4, 1.39),
    ("health", under_load("p99_ms", what="beside", calls=HEALTH), 20, 20.1),
    ("12.5 KB, one caller", caller("p50, one thread"), 0.8, 0.81),
    ("125 KB, one caller", caller("p50, one thread", size="125 KB"), 0.8, 0.81),
    ("12.5 KB, 16 threads", caller("calls/s, 16 threads"), 1.2, 1.19),
    ("12.5 KB, 16 tasks", caller("calls/s, 16 tasks"), 1.2, 1.19),
    (
        "12.5 KB, forward_many",
        caller("calls/s, many tensors", "ours (forward_many)"),
        4,
        3.9,
    ),
    (f"{SMALL}: p50", under_load("p50_ms", what="beside", calls=SMALL), 2, 2.1),
    (f"{SMALL}: p99", under_load("p99_ms", what="beside", calls=SMALL), 15, 15.1),
    ("125 KB, a generated stub", under_load("ratio", what="one caller", size="125 KB"), 0.7, 0.71),
]


@pytest.mark.parametrize(("start", "row", "meeting", "missing"), GOALS)
def test_each_goal_has_its_own_verdict(
    start: str, row: Any, meeting: float, missing: float
) -> None:
    for value, verdict in ((meeting, "met"), (missing, "**missed**")):
        judged = wire_goals.verdicts(results(**row(value)))
        (found,) = [each for each in judged if str(each) != "not measured"]
        assert found.what.startswith(start)
        assert str(found) == verdict


@pytest.mark.parametrize(
    ("what", "other", "meeting", "missing"),
    [
        ("103 MB streamed, p50 over a stream to an echo server", suite.ECHO_STREAM, 1, 0.99),
        ("103 MB streamed, p50 over Arrow Flight", suite.FLIGHT, 1, 0.99),
    ],
)
def test_a_stream_is_compared_round_by_round(
    what: str, other: str, meeting: float, missing: float
) -> None:
    for factor, verdict in ((meeting, "met"), (missing, "**missed**")):
        rows = [call(suite.STREAM, 10, 100, 30), call(other, 10, 100 * factor, 30 * factor)]
        judged = wire_goals.verdicts(results() | {"wire": rows})
        (found,) = [each for each in judged if str(each) != "not measured"]
        assert (found.what, str(found)) == (what, verdict)


def test_shared_memory_may_take_half_a_millisecond_more_than_the_engine() -> None:
    for ms, verdict in ((0.5, "met"), (0.6, "**missed**")):
        over = {"median": ms, "min": ms, "max": ms}
        row = {"transport": shared_memory.STREAM, "over_engine_ms": over}
        judged = wire_goals.verdicts(results() | {"shared-memory": [row]})
        assert str(judged[-1]) == verdict


def test_a_missing_load_generator_is_stated_in_the_row() -> None:
    row = {
        "what": "throughput",
        "size": "12.5 KB",
        "load": "16 connections",
        "skipped": "no h2load",
    }
    verdict = wire_goals.verdicts(results(load=row))[1]
    assert (verdict.figure, str(verdict)) == ("no h2load", "not measured")


def test_the_table_and_the_sentence_replace_the_former_ones() -> None:
    measured = results(**caller("p50, one thread")(1.25))
    table = wire_goals.goals_table(measured)
    former = (
        "# B\n\n| goal |\n| other |\n\n## On the wire\n\nText.\n\n| goal | x |\n| --- |\n\nEnd\n"
    )
    assert wire_goals.with_table(former, table) == former.replace("| goal | x |\n| --- |\n", table)
    assert wire_goals.SENTENCE.fullmatch(wire_goals.sentence(measured))
    assert "1.2 times" in wire_goals.sentence(measured)


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    rows = [call(name, 3, 4, payload=each) for each in suite.PAYLOADS for name in suite.TRANSPORTS]
    rows += [load(name, 100 * n, n) for name in suite.TRANSPORTS for n in suite.CONCURRENCIES]
    return [*rows, memory("server", suite.LAYER, 40), copy(suite.COPY_IN, 4)]


def test_the_report_has_every_table_and_the_command(
    rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    about = {"rounds": 2, "load_before": 0.5}
    path = report.write("wire", "the command", rows, tmp_path, quick=True, **about)
    text = wire_report.markdown(path)
    assert "the command" in text
    assert "A quick run" in text
    assert text.count(f"| {suite.SHARED} | 3.5 (3-4) |") == 1
    assert len([line for line in text.splitlines() if line.startswith("| ---")]) == 6
    widths = [line.count("|") for line in text.splitlines() if line.startswith(f"| {suite.LOCAL}")]
    assert widths == [len(suite.PAYLOADS) + 2] * 3
    document = json.loads(path.read_text()) | {"quick": False}
    path.write_text(json.dumps(document))
    assert "A quick run" not in wire_report.markdown(path)


def test_the_pictures_can_be_opened(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    for draw in (wire_plot.draw_throughput, wire_plot.draw_latency):
        draw(rows, tmp_path / "wire.png")
        with Image.open(tmp_path / "wire.png") as picture:
            picture.load()
            assert picture.width == 1800


def test_every_transport_has_a_marker() -> None:
    assert wire_plot.MARKS.keys() == set(suite.TRANSPORTS)


def test_repeated_float_is_encoded_as_packed_fields() -> None:
    x = np.array([[1.5, -2.0, 0.25]], np.float32)
    message = wire_floats.encode(x)
    lengths = (wire_format.WIRETYPE_LENGTH_DELIMITED,) * 2
    tags = [bytes([n << 3 | kind]) for n, kind in zip((1, 2), lengths, strict=True)]
    expected = tags[0] + b"\x02\x01\x03" + tags[1] + b"\x0c" + x.tobytes()
    assert message.SerializeToString() == expected
    np.testing.assert_array_equal(wire_floats.decode(message), x)


def test_payload_names_match_their_sizes() -> None:
    assert [each.request_bytes for each in suite.PAYLOADS] == sorted(
        {each.request_bytes for each in suite.PAYLOADS}
    )
    assert (suite.SEED.request_bytes, suite.SEED.output_shape) == (125_440, (10, 16, 6, 6))
    assert (suite.LAYER.request_bytes, suite.LAYER.output_shape) == (102_760_448, (32, 64, 56, 56))


def test_a_different_result_ends_the_run() -> None:
    y = np.ones(3, np.float32)
    calls = {suite.UNARY: lambda: y, suite.ECHO: lambda: None, suite.LOCAL: lambda: y}
    bench_wire.check(calls)
    with pytest.raises(SystemExit, match=re.escape(suite.UNARY)):
        bench_wire.check(calls | {suite.UNARY: lambda: y + 1})
