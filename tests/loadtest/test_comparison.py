"""Comparison of two runs: coverage of its intervals, its words, its warnings."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from pooling_cli.main import cli
from pooling_loadtest import results
from pooling_loadtest.report import comparison
from pooling_loadtest.report.comparison import compare, obstacles, sentence
from tests.support.load_runs import synthetic_results


def test_intervals_cover_a_known_difference(monkeypatch):
    monkeypatch.setattr(comparison, "_RESAMPLES", 200)
    inside = dict.fromkeys(("p50", "p90", "mean"), 0)
    for seed in range(60):
        a = synthetic_results(seed=2 * seed, calls=800)
        b = synthetic_results(seed=2 * seed + 1, calls=800, latency_ms=4.4)
        for found in compare(a, b):
            if found.figure in inside:
                inside[found.figure] += found.low <= 0.1 <= found.high
    # lag of the generator shifts the ratio by 0.05 %; 99 % intervals miss 3 of 60 by chance
    assert min(inside.values()) >= 56


def test_equal_runs_show_no_difference_and_slow_ones_do():
    a = synthetic_results(calls=4000)
    same = compare(a, synthetic_results(seed=1, calls=4000))
    assert not [found.figure for found in same if found.is_real]
    slower = synthetic_results(seed=1, calls=4000, latency_ms=6)
    slow = {found.figure: found for found in compare(a, slower)}
    for figure in ("p50", "p90", "p99", "mean"):
        assert slow[figure].is_real
        assert not slow[figure].is_better
        assert slow[figure].low < 0.5 < slow[figure].high
    assert not slow["calls/s"].is_real
    assert "B is worse" in sentence(slow["p50"])
    assert "no difference shown" in sentence(slow["errors"])


def test_more_errors_are_worse_and_fewer_calls_are_not_compared():
    a = synthetic_results(calls=2000, error_fraction=0.01)
    b = synthetic_results(seed=1, calls=2000, error_fraction=0.10)
    found = {each.figure: each for each in compare(a, b)}
    assert found["errors"].low < 9 < found["errors"].high
    assert found["errors"].is_real
    assert not found["errors"].is_better
    assert sentence(found["p99.9"]) == "p99.9: too few calls to compare."


def test_values_are_those_of_numpy():
    a = synthetic_results(calls=1000)
    found = {each.figure: each for each in compare(a, a)}
    ok = a.calls.is_ok
    assert found["p90"].a == np.percentile(a.calls.latency_ns[ok], 90) / 1e6
    assert found["errors"].b == pytest.approx(100 * np.mean(~ok))
    assert found["calls/s"].a == pytest.approx(ok.sum() / a.run.duration_s)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"loop": "closed", "callers": 8}, "The loads differ: open loop"),
        ({"protocol": "oip-rest"}, "The protocols differ: grpc and oip-rest."),
        ({"kinds": []}, "The calls differ in shape"),
        ({"environment": {}}, "machines differ in cpu"),
        ({"distorted": True, "distortions": ["Late."]}, "The generator distorted B: Late."),
        ({"stopped": "interrupted"}, "B ended early: interrupted"),
        ({"verify": {"checked": 5, "wrong": 2, "fraction": 1.0}}, "B has 2 wrong replies."),
    ],
)
def test_runs_that_are_not_comparable_are_named(change, says):
    a, b = synthetic_results(calls=10).run, synthetic_results(calls=10).run
    assert not list(obstacles(a, b))
    for name, value in change.items():
        setattr(b, name, value)
    assert any(says in obstacle for obstacle in obstacles(a, b))


def test_the_commands(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        results.write(tmp_path / name, synthetic_results(seed=seed, calls=500))
    done = CliRunner().invoke(cli, ["loadtest", "report", str(tmp_path / "a")])
    assert (done.exit_code, done.output) == (0, f"wrote {tmp_path / 'a' / 'report.html'}\n")
    done = CliRunner().invoke(
        cli, ["loadtest", "compare", str(tmp_path / "a"), str(tmp_path / "b")]
    )
    assert done.exit_code == 0
    assert "p50: " in done.output
    for command in ("report", "compare"):
        folders = [str(tmp_path)] * (2 if command == "compare" else 1)
        done = CliRunner().invoke(cli, ["loadtest", command, *folders])
        assert done.exit_code == 2
        assert done.output.startswith("Error: cannot read ")
        assert done.output.count("\n") == 1
