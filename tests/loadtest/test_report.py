"""The report: its figures against NumPy and SciPy, its text, and the page in a browser."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from scipy import stats

from pooling_loadtest import results
from pooling_loadtest.calls import Calls
from pooling_loadtest.errors import ResultsError
from pooling_loadtest.report import write
from pooling_loadtest.report.figures import AT, figures
from pooling_loadtest.report.metrics import metric_series
from pooling_loadtest.report.series import by_rate, heat_map, knee, over_time, rates
from pooling_loadtest.report.text import verdict
from pooling_loadtest.statistics import interval, is_supported
from tests.support.browser import dom_of
from tests.support.load_runs import synthetic_results


def test_percentiles_are_those_of_numpy_on_the_answered_calls():
    run = synthetic_results(calls=5000, error_fraction=0.05)
    found = figures(run)["latency_ms"]["percentiles"]
    ok = run.calls.status == 0
    latency = (run.calls.done_ns - run.calls.scheduled_ns)[ok] / 1e6
    for at, row in zip(AT, found, strict=True):
        expected = np.percentile(latency, at) if at < 99.99 else None
        assert row["ms"] == expected
        assert (row["low"] is None) == (expected is None)


@pytest.mark.parametrize(
    ("percent", "fewest"), [(50, 6), (90, 36), (99, 368), (99.9, 3688), (99.99, 36887)]
)
def test_a_percentile_needs_calls_beyond_it(percent, fewest):
    assert is_supported(percent, fewest)
    assert not is_supported(percent, fewest - 1)


@pytest.mark.parametrize("percent", [50, 90, 99])
@pytest.mark.parametrize("n", [400, 3001])
def test_the_interval_has_the_ranks_of_the_binomial_distribution(percent, n):
    low, high = interval(np.arange(n, dtype=float), percent)
    distribution = stats.binom(n, percent / 100)
    assert low == distribution.ppf(0.025) - 1
    assert high == distribution.ppf(0.975)
    assert distribution.cdf(high) - distribution.cdf(low) >= 0.95


def test_the_interval_covers_the_true_percentile():
    random = np.random.default_rng(3)
    true = stats.lognorm(1).ppf(0.99)
    inside = 0
    for _ in range(400):
        low, high = interval(np.sort(random.lognormal(size=1000)), 99)
        inside += low <= true <= high
    assert inside >= stats.binom(400, 0.95).ppf(1e-4)


def test_one_percent_injected_errors_are_reported_as_one_percent():
    run = synthetic_results(calls=2000, error_fraction=0)
    run.calls.status[::100] = 14
    found = figures(run)
    assert found["errors_percent"] == pytest.approx(1)
    row = found["errors"][0]
    assert (row["status"], row["calls"], row["percent"]) == ("UNAVAILABLE", 20, 1.0)


def test_stages_add_up_to_the_latency():
    run = synthetic_results(calls=3000)
    ok = run.calls.is_ok
    found = figures(run)["stages_ms"]
    latency = np.sort(run.calls.latency_ns[ok] / 1e6)
    assert sum(found[0]["stages"].values()) == pytest.approx(latency.mean(), rel=1e-5)
    slowest = latency[-found[2]["number"] :]
    assert sum(found[2]["stages"].values()) == pytest.approx(slowest.mean(), rel=1e-5)


def test_series_count_every_call_once():
    run = synthetic_results(calls=3000, stall_s=0.5)
    elapsed_s = run.run.elapsed_s
    rows = rates(run.calls, elapsed_s)
    ends = [row["t"] for row in rows[1:]] + [elapsed_s]
    widths = [end - row["t"] for row, end in zip(rows, ends, strict=True)]
    for name, calls in (("answered", run.calls.is_ok), ("failed", ~run.calls.is_ok)):
        counted = sum(row[name] * width for row, width in zip(rows, widths, strict=True))
        assert counted == pytest.approx(np.count_nonzero(calls))
    latency_ms = run.calls.latency_ns / 1e6
    cells = heat_map(latency_ms, run.calls.scheduled_ns, elapsed_s)
    assert sum(cell["calls"] for cell in cells) == 3000
    assert max(cell["high"] for cell in cells) > latency_ms.max() >= max(c["low"] for c in cells)
    worst = max(
        over_time(latency_ms, run.calls.scheduled_ns, elapsed_s), key=lambda row: row["max"]
    )
    assert worst["max"] == latency_ms.max()


def queue_with(service_ms: float, sweep: list[float]) -> results.Results:
    """Return an ideal queue with one server at several rates: Lindley's recursion."""
    random = np.random.default_rng(0)
    scheduled, done, segments, start = [], [], [], 0.0
    for rate in sweep:
        arrivals = start + np.sort(random.uniform(0, 5, int(5 * rate)))
        free = start
        for arrival in arrivals:
            free = max(free, arrival) + random.exponential(service_ms / 1e3)
            done.append(free)
        scheduled += arrivals.tolist()
        segments.append({"start_s": start, "end_s": start + 5, "rate": rate})
        start = free + 5
    ns = [(np.array(each) * 1e9).astype(np.int64) for each in (scheduled, done)]
    run = synthetic_results(calls=10)
    run.calls = Calls({"scheduled_ns": ns[0], "sent_ns": ns[0], "done_ns": ns[1]} | {
        "status": np.zeros(len(ns[0]), np.uint8)})  # fmt: skip
    run.run.schedule = {"kind": "sweep", "segments": segments}
    return run


def test_the_knee_of_a_queue_is_below_its_capacity():
    run = queue_with(10.0, [20, 40, 60, 80, 120, 160])  # the server can answer 100 calls/s
    rows = by_rate(run.run, run.calls)
    assert [row["rate"] for row in rows] == [20, 40, 60, 80, 120, 160]
    assert 40 <= knee(rows) <= 80
    assert rows[-1]["answered"] == pytest.approx(105, abs=15)  # 5 % more time than the segment
    assert knee(rows[-2:]) == 120 or rows[-2]["kept_up"] < 0.95


def test_a_constant_rate_has_no_curve_of_load():
    run = synthetic_results()
    assert by_rate(run.run, run.calls) == []


def test_metrics_become_rates_summed_over_labels():
    samples = [
        {"at_s": float(t), "samples": {'a_total{x="1"}': t * 3.0, 'a_total{x="2"}': t**2, "b": 1.0}}
        for t in range(4)
    ]
    assert metric_series(samples) == [
        ("a_total, per second", [{"t": 1.0, "value": 4.0}, {"t": 2.0, "value": 6.0},
                                 {"t": 3.0, "value": 8.0}]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "changes", "grade", "says"),
    [
        ({"error_fraction": 0.0}, {}, "passed", "200 replies were checked; all are right."),
        ({"wrong": 3}, {}, "failed", "3 of 200 checked replies were wrong."),
        ({}, {"slo": {"text": "p99<1ms", "met": False}}, "failed", "p99<1ms was missed."),
        ({}, {"stopped": "interrupted"}, "warned", "was interrupted"),
        ({}, {"stopped": "the server is unavailable"}, "failed", "the server is unavailable"),
        ({"distorted": True}, {}, "warned", "late"),
        ({"error_fraction": 1.0}, {}, "failed", "No call was answered."),
        ({"error_fraction": 0.2}, {}, "warned", "No objective was set."),
        (
            {"error_fraction": 0.2},
            {"slo": {"text": "errors<30%", "met": True}},
            "passed",
            "errors<30% was met.",
        ),
    ],
)
def test_the_verdict(arguments, changes, grade, says):
    run = synthetic_results(**arguments)
    if arguments.get("distorted"):
        run.run.distorted, run.run.distortions = True, ["The generator sent calls late."]
    for name, value in changes.items():
        setattr(run.run, name, value)
    found, _, sentences = verdict(run.run, figures(run))
    assert found == grade
    assert any(says in sentence for sentence in sentences)


@pytest.mark.parametrize(
    "run",
    [
        synthetic_results(calls=0 + 1, error_fraction=1.0),
        synthetic_results(calls=3, error_fraction=0.0, loop="closed"),
    ],
    ids=["no answer", "three calls"],
)
def test_short_runs_have_a_report(tmp_path, run):
    results.write(tmp_path, run)
    assert write(tmp_path).stat().st_size > 1e5


def test_a_folder_without_results_is_rejected(tmp_path):
    with pytest.raises(ResultsError, match=r"cannot read .*run.json"):
        write(tmp_path)


def test_a_browser_draws_every_chart_without_a_network(tmp_path):
    run = queue_with(4.0, [30, 90, 200, 300])
    run.run.title = "queue: <b>&"
    run.run.slo = {"text": "p99<50ms", "met": False}
    run.server_metrics = [
        {"at_s": float(t), "samples": {"pooling_calls_total": t * t + 0.0}} for t in range(5)
    ]
    results.write(tmp_path, run)
    path = write(tmp_path)
    page = path.read_text()
    markup = re.sub("<script>.*?</script>", "", page, flags=re.DOTALL)
    assert set(re.findall(r'(?:src|href)="([^"]*)"', markup)) == {"data:,"}
    assert json.loads((tmp_path / "summary.json").read_text())["knee"] in (30, 90, 200)
    dom = dom_of(path)
    drawn = re.search(r'data-charts="(\d+)"', dom)
    assert drawn, re.search(r'data-error="([^"]*)"', dom)
    assert int(drawn[1]) == dom.count('class="marks"') == page.count('class="chart"')
    for title in ("Latency against offered load", "Throughput", "Latency heat map", ">knee ",
                  "pooling_calls_total, per second", ">objective<"):  # fmt: skip
        assert title in dom
    assert "NaN" not in dom.partition("<script")[0]
