"""The folder of a load test: written, read, and rejected."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pooling_loadtest import results
from pooling_loadtest.results import COLUMNS, Calls, ResultsError
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
        results.percentiles(calls.latency_ns, at), np.percentile(calls.latency_ns, at)
    )
    assert np.isnan(results.percentiles([], at)).all()


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
        ("run.json", b'{"format": 1}', "keys do not match"),
        ("run.json", b"[]", "run.json is of type list; it must be an object"),
        (
            "run.json",
            b'{"format": 1, "schedule": 3}',
            "schedule is of type int; it must be an object",
        ),
        ("server_metrics.json", b"{}", "server_metrics.json is of type dict; it must be a list"),
        ("server_metrics.json", b"[3]", r"server_metrics.json\[0\] has no at_s or samples"),
        ("calls.npz", b"PK\x03\x04" + bytes(500), "does not hold .*: calls.npz is incomplete"),
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
