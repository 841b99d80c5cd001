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
from benchmarks.wire import suite

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


def many(transport: str, rate: float) -> dict[str, Any]:
    return {"what": "many", "group": "many", "transport": transport, "rounds": [rate]}


SEED, LAYER, SIXTY = suite.SEED, suite.LAYER, suite.UNARY_60
LIMIT = 2.5 * SIXTY.request_bytes / MIB
COPYING = [call(suite.LOCAL, 10), copy(suite.COPY_IN, 4), copy(suite.COPY_OUT, 2)]
GOALS = [  # rows that just meet the goal, rows that just miss it
    (
        [call(suite.UNARY, 1.25, payload=SEED), call(suite.ECHO, 1, payload=SEED)],
        [call(suite.UNARY, 1.26, payload=SEED), call(suite.ECHO, 1, payload=SEED)],
    ),
    (
        [load(suite.UNARY, 850), load(suite.ECHO, 1000)],
        [load(suite.UNARY, 849), load(suite.ECHO, 1000)],
    ),
    (
        [many(suite.MANY_STREAM, 2500), many(suite.UNARY, 1000)],
        [many(suite.MANY_STREAM, 2499), many(suite.UNARY, 1000)],
    ),
    (
        [call(suite.STREAM, 130), call(suite.ECHO_STREAM, 100)],
        [call(suite.STREAM, 131), call(suite.ECHO_STREAM, 100)],
    ),
    (
        [call(suite.STREAM, 100), call(suite.FLIGHT, 100)],
        [call(suite.STREAM, 101), call(suite.FLIGHT, 100)],
    ),
    (
        [call(suite.STREAM, 100), call(suite.NAIVE, 300)],
        [call(suite.STREAM, 100), call(suite.NAIVE, 299)],
    ),
    (
        [call(suite.SHARED, 12), call(suite.LOCAL, 10)],
        [call(suite.SHARED, 12.5), call(suite.LOCAL, 10)],
    ),
    (
        [call(suite.SHARED_COPIED, 18), *COPYING],
        [call(suite.SHARED_COPIED, 18.5), *COPYING],
    ),
    ([memory("server", LAYER, 63.9)], [memory("server", LAYER, 64)]),
    ([memory("server", SIXTY, LIMIT - 0.1)], [memory("server", SIXTY, LIMIT + 0.1)]),
    ([memory("client", SIXTY, LIMIT - 0.1)], [memory("client", SIXTY, LIMIT + 0.1)]),
]


@pytest.mark.parametrize("number", range(len(GOALS)))
def test_each_goal_has_its_own_verdict(number: int) -> None:
    meeting, missing = GOALS[number]
    for rows, verdict in ((meeting, "met"), (missing, "**missed**"), ([], "not measured")):
        judged = [str(each) for each in wire_goals.verdicts(rows)]
        assert len(judged) == len(GOALS)
        assert judged.pop(number) == verdict
        assert set(judged) == {"not measured"}


def test_ratios_are_taken_round_by_round() -> None:
    rows = [call(suite.STREAM, 10, 100, 30), call(suite.ECHO_STREAM, 10, 50, 20)]
    assert wire_goals.verdicts(rows)[3].figure == "1.50 (1.00-2.00)"


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    rows = [call(name, 3, 4, payload=each) for each in suite.PAYLOADS for name in suite.TRANSPORTS]
    rows += [load(name, 100 * n, n) for name in suite.TRANSPORTS for n in suite.CONCURRENCIES]
    return [*rows, memory("server", LAYER, 40), copy(suite.COPY_IN, 4), many(suite.UNARY, 9)]


def test_the_report_has_every_table_and_the_command(
    rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    about = {"rounds": 2, "load_before": 0.5}
    path = report.write("wire", "the command", rows, tmp_path, quick=True, **about)
    text = wire_report.markdown(path)
    assert "the command" in text
    assert "A quick run" in text
    assert text.count(f"| {suite.SHARED} | 3.5 (3-4) |") == 1
    assert len([line for line in text.splitlines() if line.startswith("| ---")]) == 8
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


def test_former_names_of_transports_are_read(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    former = {present: name for name, present in suite.FORMER_NAMES.items()}
    assert former.keys() >= set(suite.TRANSPORTS)
    old = [
        {("way" if key == "transport" else key): value for key, value in row.items()}
        | {"way": former.get(row["transport"], row["transport"])}
        for row in rows
    ]
    path = report.write("wire", "the command", old, tmp_path)
    assert wire_report.read(path)["rows"] == rows


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
    assert (SEED.request_bytes, SEED.output_shape) == (125_440, (10, 16, 6, 6))
    assert (LAYER.request_bytes, LAYER.output_shape) == (102_760_448, (32, 64, 56, 56))


def test_a_different_result_ends_the_run() -> None:
    y = np.ones(3, np.float32)
    calls = {suite.UNARY: lambda: y, suite.ECHO: lambda: None, suite.LOCAL: lambda: y}
    bench_wire.check(calls)
    with pytest.raises(SystemExit, match=re.escape(suite.UNARY)):
        bench_wire.check(calls | {suite.UNARY: lambda: y + 1})
