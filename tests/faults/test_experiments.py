"""Short forms of the experiments of docs/reliability.md: counts of calls and resources."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from benchmarks import report
from benchmarks.reliability import (
    clients,
    clocks,
    document,
    endings,
    hostile,
    overload,
    resources,
    restarts,
    security,
    soak,
)
from benchmarks.reliability.serving import Row

EXPERIMENTS: dict[str, Callable[[], list[Row]]] = {
    "killed workers": lambda: restarts.killed_workers(seconds=1, pause_s=0.5),
    "absent server": lambda: restarts.absent_server(seconds=0.5),
    "rolling restart": lambda: restarts.rolling_restart(times=1),
    "stopped server": lambda: restarts.stopped_server(times=1),
    "forked clients": lambda: clients.forked_clients(times=1),
    "certificates and tokens": security.security,
    "endings": lambda: endings.endings(("cancel",)),
    "resources": lambda: resources.resources(calls=20),
    "clocks": lambda: clocks.set_clocks(calls=10),
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_requirement_is_met(name: str) -> None:
    for row in EXPERIMENTS[name]():
        assert row["met"], row["measured"]


@pytest.mark.parametrize("name", tuple(overload.CALLS)[1:])
def test_an_overloaded_server_answers_or_rejects_every_call(name: str) -> None:
    (row,) = overload.offered_load(seconds=0.3, rounds=1, names=(name,))
    assert row["figures"]["other"] == {}
    assert row["figures"]["rejected"][3] + row["figures"]["cancelled"] > 0
    assert all(row["figures"]["goodput"][3])


@pytest.mark.parametrize("attack", ["rapid reset", "gzip bombs", "ping flood", "slow writers"])
def test_no_call_beside_an_attack_fails(attack: str) -> None:
    (row,) = hostile.attacks(seconds=0.3, rounds=1, names=(attack,))
    assert row["figures"]["failed"] == 0
    assert row["figures"]["steps"] > 0
    assert row["figures"]["descriptors_left"] <= hostile.SLACK


def test_a_soak_leaves_no_descriptors_and_little_memory() -> None:
    samples = soak.soak(3000)
    late = samples[len(samples) // 2 :]
    for end in ("server", "client"):
        assert late[-1][f"{end}_descriptors"] - late[0][f"{end}_descriptors"] <= 4
        assert late[-1][f"{end}_mb"] - late[0][f"{end}_mb"] < 64


def test_the_document_follows_the_result() -> None:
    path = report.RESULTS / "reliability.json"
    assert document.table(path) in document.DOCUMENT.read_text()
    assert json.loads(path.read_text())["rows"]
