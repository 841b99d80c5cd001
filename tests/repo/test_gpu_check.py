"""`make gpu-check` without a GPU: its steps, its report and its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from scripts.gpu import check as gpu_check

ROOT = Path(__file__).parents[2]
DEVICE = "NVIDIA Nothing 1"
LIMIT_S = 60


def step(name: str, code: str, limit_s: float = LIMIT_S) -> gpu_check.Step:
    return gpu_check.Step(name, limit_s, (sys.executable, "-c", code))


def check(
    folder: Path, *steps: gpu_check.Step, seconds: float = LIMIT_S
) -> tuple[int, list[dict[str, Any]]]:
    """Run steps; return the exit code and the rows of the report."""
    code = gpu_check.check(iter(steps), folder, DEVICE, time.monotonic() + seconds)
    return code, json.loads((folder / "gpu-check-nothing-1.json").read_text())["rows"]


def steps_by_name() -> dict[str, gpu_check.Step]:
    return {each.name: each for each in gpu_check.steps()}


def test_every_step_runs_and_is_reported(tmp_path: Path) -> None:
    steps = [step("one", "print('a'); print('b')"), step("two", "import sys; sys.exit('bad')")]
    code, rows = check(tmp_path, *steps, step("three", "print('c')"))
    assert [(row["step"], row["status"], row["last_line"]) for row in rows] == [
        ("one", "passed", "b"),
        ("two", "failed", "bad"),
        ("three", "passed", "c"),
    ]
    assert code == 1
    log = (tmp_path / "gpu-check-nothing-1.log").read_text()
    assert log.index("a\nb\n") < log.index("bad\n") < log.index("== all")
    assert check(tmp_path, steps[0])[0] == 0


def test_a_hanging_step_is_killed_with_its_child_processes(tmp_path: Path) -> None:
    code = "import os; child = os.fork(); print(child or os.getpid(), flush=True)\n"
    hangs = step("hangs", code + "import time; time.sleep(600)", limit_s=2)
    exit_code, (row, after) = check(tmp_path, hangs, step("after", "print(1)"))
    assert (exit_code, row["status"], after["status"]) == (1, "timed out", "passed")
    assert not is_alive(int(row["last_line"]))


def is_alive(process_id: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{process_id}/status").read_text()
    except OSError:
        return False


def test_a_missing_tool_is_reported_and_is_no_failure(tmp_path: Path) -> None:
    code, (row,) = check(tmp_path, gpu_check.Step("tool", 9, (), "the tool is not installed"))
    assert (code, row["status"], row["last_line"]) == (0, "not run", "the tool is not installed")


def test_a_step_without_time_left_is_a_failure(tmp_path: Path) -> None:
    code, (row,) = check(tmp_path, step("late", "print(1)"), seconds=0)
    assert (code, row["status"], row["last_line"]) == (1, "not run", "no time was left")


@pytest.mark.parametrize(("body", "status"), [("pass", "passed"), ("skip()", "failed")])
def test_a_skipped_test_is_a_failure(tmp_path: Path, body: str, status: str) -> None:
    (tmp_path / "test_it.py").write_text(f"from pytest import skip\ndef test_it(): {body}\n")
    report = tmp_path / "it.xml"
    command = (*gpu_check.PYTEST, "-c", "/dev/null", str(tmp_path), f"--junit-xml={report}")
    code, (row,) = check(tmp_path, gpu_check.Step("it", LIMIT_S, command, junit=report))
    assert (row["status"], row["tests"], row["skipped"]) == (status, 1, int(status == "failed"))
    assert code == int(status == "failed")


def test_the_benchmark_gets_the_remaining_time(tmp_path: Path) -> None:
    last = step("benchmark", "import sys; print(*sys.argv[1:])")
    code, (row,) = check(tmp_path, last)
    assert (code, row["last_line"]) == (0, f"--output {tmp_path} --seconds {LIMIT_S - 30}")


def test_earlier_steps_leave_time_for_the_benchmark() -> None:
    limits = [(each.name, each.limit_s) for each in gpu_check.steps()]
    before = limits[: [name for name, _ in limits].index("benchmark")]
    assert sum(limit_s for _, limit_s in before) + dict(limits)["benchmark"] <= 570
    assert dict(limits)["benchmark"] >= 200


def test_the_steps_run_existing_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / gpu_check.SANITIZER
    tool.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    steps = steps_by_name()
    order = ["kernels", "tests", "benchmark", "random tests", "memcheck", "racecheck"]
    assert list(steps) == order
    for each in steps.values():
        files = [word for word in each.command if word.endswith(".py")]
        assert all((ROOT / word).exists() for word in files), each
        assert files or each.command[1:] == ("-m", "benchmarks.gpu")
    assert steps["racecheck"].command[:3] == (str(tool), "--tool", "racecheck")


def test_missing_tools_and_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "sanitizer", lambda: None)
    monkeypatch.setattr(gpu_check.importlib.util, "find_spec", lambda name: None)
    steps = steps_by_name()
    assert steps["memcheck"][2:4] == ((), "compute-sanitizer is not installed")
    assert steps["random tests"][2:4] == ((), "hypothesis or ml_dtypes is not installed")


def test_the_device_tests_run_without_plugins_of_pytest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run some of them on the fake CuPy. With a GPU required, none is skipped."""
    folders = (ROOT / "tests/gpu/fakes", ROOT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, folders)))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    tests = steps_by_name()["tests"]
    some = "test_short[float16-1] or invalid_indices or stream_of_cupy"
    tests = tests._replace(command=(*tests.command, "-k", some))
    code, (row,) = check(tmp_path, tests)
    assert (code, row["status"], row["tests"], row["skipped"]) == (0, "passed", 3, 0), row


def test_a_gpu_that_does_not_respond_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "REQUIREMENTS", "import time; time.sleep(600)")
    monkeypatch.setattr(gpu_check, "REQUIREMENTS_S", 0.5)
    with pytest.raises(SystemExit, match=r"error: the GPU did not respond within 0\.5 s"):
        gpu_check.device_name()


def test_a_python_that_is_too_old_is_rejected_first(monkeypatch: pytest.MonkeyPatch) -> None:
    old = "import sys; sys.version_info = (3, 10, 12)\n"
    monkeypatch.setattr(gpu_check, "REQUIREMENTS", old + gpu_check.REQUIREMENTS)
    with pytest.raises(SystemExit, match=r"Python 3\.11 or newer is needed"):
        gpu_check.device_name()


def test_without_a_gpu_the_error_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        ["make", "-s", "-C", ROOT, "gpu-check", f"OUT={tmp_path}", f"PYTHON={sys.executable}"],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode
    (line, *_) = done.stderr.splitlines()
    assert line.startswith("error: no usable GPU, or a package is missing: ")
    assert list(tmp_path.iterdir()) == []
