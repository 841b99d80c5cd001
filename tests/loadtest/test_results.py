"""The folder of a load test: written, read, and rejected."""

from __future__ import annotations

import json
import re
from contextlib import suppress

import numpy as np
import pytest

from pooling_loadtest import results
from pooling_loadtest.calls import COLUMNS, Calls, percentiles
from pooling_loadtest.errors import ResultsError
from pooling_loadtest.report.figures import figures
from pooling_loadtest.report.page import page
from tests.support.load_runs import synthetic_results


def test_a_folder_is_read_as_it_was_written(tmp_path):
    written = synthetic_results(wrong=2)
    written.server_metrics = [{"at_s": 1.0, "samples": {'calls_total{method="Forward"}': 3.0}}]
    results.write(tmp_path / "run", written)
    read = results.read(tmp_path / "run")
    assert read.run.to_json() == json.loads(json.dumps(written.run.to_json()))
    assert read.server_metrics == written.server_metrics
    for name, dtype in COLUMNS.items():
        assert getattr(read.calls, name).dtype == dtype
        np.testing.assert_array_equal(getattr(read.calls, name), getattr(written.calls, name))


def test_a_call_takes_56_bytes():
    assert sum(column.nbytes for column in Calls.empty(1000).columns().values()) == 56_000


def test_latency_counts_from_the_scheduled_time_and_lag_is_the_generators_part():
    calls = Calls(
        {
            "scheduled_ns": np.array([10, 20, 30]),
            "sent_ns": np.array([12, 25, -1]),
            "done_ns": np.array([50, -1, -1]),
            "status": np.array([0, 255, 255]),
        }
    )
    assert calls.latency_ns.tolist() == [40, -1, -1]
    assert calls.lag_ns.tolist() == [2, 5, -1]
    assert calls.is_ok.tolist() == [True, False, False]


def test_percentiles_equal_those_of_numpy():
    calls = synthetic_results(calls=997).calls
    at = [0, 50, 90, 99, 99.9, 99.99, 100]
    np.testing.assert_array_equal(
        percentiles(calls.latency_ns, at), np.percentile(calls.latency_ns, at)
    )
    assert np.isnan(percentiles([], at)).all()


def test_calls_of_processes_are_joined_in_the_order_of_their_schedule():
    calls = synthetic_results(calls=100).calls
    joined = Calls.joined([calls[calls.process == 1], calls[calls.process == 0]])
    np.testing.assert_array_equal(joined.scheduled_ns, calls.scheduled_ns)
    np.testing.assert_array_equal(joined.process, calls.process)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("run.json", None, "cannot read .*run.json: No such file or directory; give a folder"),
        ("calls.npz", None, "cannot read .*calls.npz: No such file"),
        ("run.json", b'{"format": 2}', "its format is 2; must be 1"),
        ("run.json", b'{"format": 1}', "run.json: key 'callers' is missing"),
        ("run.json", b"[]", "run.json: content is of type list; it must be an object"),
        (
            "server_metrics.json",
            b"{}",
            "server_metrics.json: content is of type dict; it must be a list",
        ),
        (
            "server_metrics.json",
            b"[3]",
            r"server_metrics.json: content\[0\] is 3; it must be an object",
        ),
        (
            "calls.npz",
            b"PK\x03\x04" + bytes(500),
            "does not hold .*: calls.npz is incomplete or damaged",
        ),
        ("run.json", b"nonsense", "does not hold the results of a load test"),
        ("calls.npz", b"nonsense", "does not hold the results of a load test"),
        ("calls.npz", b"", "does not hold the results of a load test"),
    ],
)
def test_other_folders_are_rejected_in_one_line(tmp_path, name, content, says):
    results.write(tmp_path, synthetic_results(calls=10))
    (tmp_path / name).unlink(missing_ok=True)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ResultsError, match=says) as caught:
        results.read(tmp_path)
    assert "\n" not in str(caught.value)


def set_at(content, path, value):
    """Set one value of a JSON object; `...` removes it."""
    *parents, last = path
    for key in parents:
        content = content[key]
    if value is ...:
        del content[last]
    else:
        content[last] = value


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("title",), ..., "key 'title' is missing"),
        (("title",), 3, "title is 3; it must be a text"),
        (("elapsed_s",), "9", "elapsed_s is '9'; it must be a finite number"),
        (("elapsed_s",), float("nan"), "elapsed_s is nan; it must be a finite number"),
        (("duration_s",), -1, "duration_s is -1; it must be from 0 to 1e+08"),
        (("started_unix_ns",), 1e30, "started_unix_ns is 1e+30; it must be a whole number"),
        (("started_unix_ns",), 10**30, "it must be from 0 to 2^63 - 1"),
        (("loop",), "ajar", "loop is 'ajar'; it must be 'open' or 'closed'"),
        (("targets",), "a:1", "targets is 'a:1'; it must be a list"),
        (("targets",), [1], "targets[0] is 1; it must be a text"),
        (("kinds", 0, "shape"), 5, "kinds[0].shape is 5; it must be a list"),
        (("kinds", 1, "weight"), ..., "key 'kinds[1].weight' is missing"),
        (("kinds",), [], "column kind has 1; run.json describes 0 kinds"),
        (("schedule", "segments", 0, "rate"), None, "segments[0].rate is None; it must be"),
        (("verify", "checked"), ..., "key 'verify.checked' is missing"),
        (("verify", "wrong"), True, "verify.wrong is True; it must be a whole number"),
        (("environment", "versions"), 3, "environment.versions is 3; it must be an object"),
        (("slo",), {"text": "p99<1ms"}, "key 'slo.met' is missing"),
        (("slo",), {"text": "fast", "met": True}, "slo has 'fast'; it must consist of"),
        (("capacity",), {"rate": 3.0}, "key 'capacity.high' is missing"),
    ],
)
def test_an_edited_description_is_rejected_in_one_line(tmp_path, path, value, says):
    results.write(tmp_path, synthetic_results(calls=100))
    content = json.loads((tmp_path / "run.json").read_text())
    set_at(content, path, value)
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(ResultsError, match=f"does not hold .*: .*{re.escape(says)}") as caught:
        results.read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "column", "says"),
    [
        ("done_ns", np.zeros(100), "column done_ns has type float64; must be int64"),
        ("done_ns", np.zeros(99, np.int64), r"column done_ns has shape \(99,\); must be \(100,\)"),
        ("sent_ns", np.full(100, -2), "column sent_ns must be -1 or a time"),
        ("kind", np.full(100, 7, np.uint8), "column kind has 7; run.json describes 2 kinds"),
        ("status", np.array([{}] * 100), "Object arrays cannot be loaded"),
        ("status", None, "status is not a file in the archive"),
    ],
)
def test_edited_columns_are_rejected_in_one_line(tmp_path, name, column, says):
    written = synthetic_results(calls=100)
    results.write(tmp_path, written)
    columns = written.calls.columns() | {name: column}
    np.savez(tmp_path / "calls.npz", **{key: a for key, a in columns.items() if a is not None})
    with pytest.raises(ResultsError, match=f"does not hold .*: calls.npz: .*{says}") as caught:
        results.read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["run.json", "calls.npz"])
def test_damaged_files_are_read_in_full_or_rejected_in_one_line(tmp_path, name):
    results.write(tmp_path, synthetic_results(calls=20))
    whole, random = (tmp_path / name).read_bytes(), np.random.default_rng(0)
    for at in random.integers(0, len(whole), 150).tolist():
        changed = bytearray(whole)
        changed[at] ^= 1 << random.integers(8)
        for damaged in (whole[:at], bytes(changed)):
            (tmp_path / name).write_bytes(damaged)
            with suppress(ResultsError):  # every other error fails the test
                found = results.read(tmp_path)
                page(found, figures(found), lambda: "")


def test_a_folder_is_replaced_with_its_metrics(tmp_path):
    first, second = synthetic_results(calls=10), synthetic_results(calls=10)
    first.server_metrics = [{"at_s": 1.0, "samples": {"a": 1.0}}]
    second.server_metrics = []
    results.write(tmp_path, first)
    results.write(tmp_path, second)
    assert results.read(tmp_path).server_metrics == []


def test_a_full_disk_gives_one_line(tmp_path):
    (tmp_path / "calls.npz").symlink_to("/dev/full")
    with pytest.raises(ResultsError, match=r"cannot write .*: No space left on device"):
        results.write(tmp_path, synthetic_results(calls=10))
