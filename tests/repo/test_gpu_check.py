"""`make gpu-check` without a card: what it runs, what it says of that, and when it is content."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CARD = "NVIDIA Nothing 1"
LIMIT_S = 60

spec = importlib.util.spec_from_file_location("gpu_check", ROOT / "scripts/gpu_check.py")
gpu_check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gpu_check)


def step(name, code, limit_s=LIMIT_S, **more):
    return gpu_check.Step(name, limit_s, (sys.executable, "-c", code), **more)


def check(tmp_path, *steps, seconds=LIMIT_S):
    """The exit code, and what was written of each step."""
    code = gpu_check.check(iter(steps), tmp_path, CARD, time.monotonic() + seconds)
    return code, json.loads((tmp_path / "gpu-check-nothing-1.json").read_text())["rows"]


def test_every_step_is_run_and_told_of(tmp_path):
    steps = [step("one", "print('a'); print('b')"), step("two", "import sys; sys.exit('bad')")]
    code, rows = check(tmp_path, *steps, step("three", "print('c')"))
    assert [(row["step"], row["status"], row["said"]) for row in rows] == [
        ("one", "passed", "b"),
        ("two", "failed", "bad"),
        ("three", "passed", "c"),
    ]
    assert code == 1
    log = (tmp_path / "gpu-check-nothing-1.log").read_text()
    assert log.index("a\nb\n") < log.index("bad\n") < log.index("== all")
    assert check(tmp_path, steps[0])[0] == 0


def test_a_step_that_hangs_is_ended_with_all_that_it_started(tmp_path):
    code = "import os; child = os.fork(); print(child or os.getpid(), flush=True)\n"
    hangs = step("hangs", code + "import time; time.sleep(600)", limit_s=2)
    start = time.monotonic()
    code, (row, after) = check(tmp_path, hangs, step("after", "print(1)"))
    assert time.monotonic() - start < LIMIT_S
    assert (code, row["status"], after["status"]) == (1, "timed out", "passed")
    assert not is_alive(int(row["said"]))


def is_alive(number):
    try:
        return "State:\tZ" not in Path(f"/proc/{number}/status").read_text()
    except OSError:
        return False


def test_what_is_not_installed_is_said_and_no_failure(tmp_path):
    code, (row,) = check(tmp_path, gpu_check.Step("tool", 9, (), "the tool is not installed"))
    assert (code, row["status"], row["said"]) == (0, "not run", "the tool is not installed")


def test_what_there_was_no_time_for_is_a_failure(tmp_path):
    code, (row,) = check(tmp_path, step("late", "print(1)"), seconds=0)
    assert (code, row["status"], row["said"]) == (1, "not run", "no time was left")


@pytest.mark.parametrize(("body", "status"), [("pass", "passed"), ("skip()", "failed")])
def test_a_test_that_is_skipped_is_a_failure(tmp_path, body, status):
    (tmp_path / "test_it.py").write_text(f"from pytest import skip\ndef test_it(): {body}\n")
    report = tmp_path / "it.xml"
    command = (*gpu_check.PYTEST, "-c", "/dev/null", str(tmp_path), f"--junit-xml={report}")
    code, (row,) = check(tmp_path, gpu_check.Step("it", LIMIT_S, command, tests=report))
    assert (row["status"], row["tests"], row["skipped"]) == (status, 1, int(status == "failed"))
    assert code == int(status == "failed")


def test_the_benchmark_gets_the_time_that_is_left(tmp_path):
    last = step("benchmark", "import sys; print(*sys.argv[1:])")
    code, (row,) = check(tmp_path, last)
    assert (code, row["said"]) == (0, f"--output {tmp_path} --seconds {LIMIT_S - 30}")


def test_what_else_there_is_leaves_the_benchmark_its_time(monkeypatch):
    """Whatever comes before it takes all that it may."""
    limits = [(each.name, each.limit_s) for each in gpu_check.steps()]
    before = limits[: [name for name, _ in limits].index("benchmark")]
    assert sum(limit_s for _, limit_s in before) + dict(limits)["benchmark"] <= 570
    assert dict(limits)["benchmark"] >= 200


def test_the_steps(monkeypatch, tmp_path):
    tool = tmp_path / gpu_check.SANITIZER
    tool.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    steps = {each.name: each for each in gpu_check.steps()}
    order = ["kernels", "tests", "benchmark", "random tests", "memcheck", "racecheck"]
    assert list(steps) == order
    for each in steps.values():
        scripts = [word for word in each.command if word.endswith(".py")]
        assert all((ROOT / word).exists() for word in scripts), each
        assert scripts
    assert steps["racecheck"].command[:3] == (str(tool), "--tool", "racecheck")


def test_where_tools_are_missing_it_says_so(monkeypatch):
    monkeypatch.setattr(gpu_check, "sanitizer", lambda: None)
    monkeypatch.setattr(gpu_check.importlib.util, "find_spec", lambda name: None)
    steps = {each.name: each for each in gpu_check.steps()}
    assert steps["memcheck"][2:4] == ((), "compute-sanitizer is not installed")
    assert steps["random tests"][2:4] == ((), "hypothesis or ml_dtypes is not installed")


def test_the_tests_of_a_card_run(tmp_path, monkeypatch):
    """Two of them, on a stand-in for CuPy; that of a card is wanted, and none is skipped."""
    folders = (ROOT / "tests/gpu/fakes", ROOT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, folders)))
    step = next(each for each in gpu_check.steps() if each.name == "tests")
    step = step._replace(command=(*step.command, "-k", "test_short[float16-1] or forged"))
    code, (row,) = check(tmp_path, step)
    assert (code, row["status"], row["tests"], row["skipped"]) == (0, "passed", 2, 0), row


def test_a_card_that_hangs_is_said_to(monkeypatch):
    monkeypatch.setattr(gpu_check, "FIRST", "import time; time.sleep(600)")
    monkeypatch.setattr(gpu_check, "FIRST_S", 0.5)
    with pytest.raises(SystemExit, match=r"error: the card gives no answer within 0\.5 s"):
        gpu_check.card_name()


def test_a_python_that_is_too_old_is_refused_before_anything_runs(monkeypatch):
    old = "import sys; sys.version_info = (3, 10, 12)\n"
    monkeypatch.setattr(gpu_check, "FIRST", old + gpu_check.FIRST)
    with pytest.raises(SystemExit, match=r"Python 3\.11 or newer is needed"):
        gpu_check.card_name()


def test_without_a_card_it_says_so_in_one_line(tmp_path):
    done = subprocess.run(
        ["make", "-s", "-C", ROOT, "gpu-check", f"OUT={tmp_path}", f"PYTHON={sys.executable}"],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode
    (line, *_) = done.stderr.splitlines()
    assert line.startswith("error: no card to check, or a library is missing: ")
    assert list(tmp_path.iterdir()) == []
