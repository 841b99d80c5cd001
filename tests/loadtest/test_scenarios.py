"""Scenarios: those that ship, and those that are rejected."""

from __future__ import annotations

from pathlib import Path

import pytest

from pooling_loadtest.errors import MisuseError
from pooling_loadtest.payloads import payloads_of
from pooling_loadtest.scenarios import kinds_of, read_scenario, shipped

KIND = "{name: a, shape: [1, 2, 8, 8], spec: {mode: max, kernel: 2}}"


def test_five_scenarios_ship() -> None:
    expected = ["few-large", "lenet-training", "many-small", "resnet-inference", "yolo-pyramid"]
    assert shipped() == expected


@pytest.mark.parametrize("name", shipped())
def test_each_shipped_scenario_describes_legal_calls(name: str) -> None:
    scenario = read_scenario(name)
    assert scenario["description"].endswith(".")
    for kind in kinds_of(scenario):
        payloads = payloads_of(kind, seed=0)
        assert all(payload.is_right(payload.expected) for payload in payloads)
        assert not payloads[0].is_right(payloads[1].expected)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"title: t\nkinds: [{KIND}]\nspeed: 3", r"\$: .*'speed' was unexpected.*known keys are"),
        (
            f"title: t\nkinds: [{KIND.replace('kernel', 'kernal')}]",
            r"\$.kinds\[0\].spec: .*'kernal' was unexpected.*kernel, stride",
        ),
        (f"kinds: [{KIND}]", "'title' is a required property"),
        (f"title: t\nkinds: [{KIND}]\nrate: -3", r"\$.rate: -3 is less than or equal to"),
        (f"title: t\nkinds: [{KIND}]\nverify: 2", r"\$.verify: 2 is greater than"),
        ("title: t\nkinds: []", r"\$.kinds: \[\] should be non-empty"),
        (f"title: t\nkinds: [{KIND.replace('max', 'median')}]", "'median' is not one of"),
        ("just text", "'just text' is not of type 'object'"),
        ("a: [", "is not YAML"),
    ],
)
def test_invalid_scenarios_are_rejected_in_one_line(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(MisuseError, match=says) as caught:
        read_scenario(str(tmp_path / "s.yaml"))
    assert "\n" not in str(caught.value)


def test_a_missing_scenario_names_those_that_ship() -> None:
    with pytest.raises(MisuseError, match=r"No such file.*few-large, lenet-training"):
        read_scenario("lenet")


def test_lists_become_tuples(tmp_path: Path) -> None:
    kind = "{name: a, shape: [1, 2, 8, 8], spec: {mode: max, kernel: [2, 4]}, weight: 2}"
    (tmp_path / "s.yaml").write_text(f"title: t\nkinds: [{kind}]")
    (found,) = kinds_of(read_scenario(str(tmp_path / "s.yaml")))
    assert (found.shape, found.spec["kernel"], found.weight) == ((1, 2, 8, 8), (2, 4), 2)
