"""Run everything that needs an NVIDIA GPU: kernels, tests, benchmark, compute-sanitizer.

    python3 scripts/gpu/check.py --output benchmarks/results

Needs no network and installs nothing. It uses the packages of `python3`: NumPy, CuPy, PyTorch,
pytest, grpcio and protobuf. Every step has a time limit, and --seconds limits all steps together.
Writes gpu-check-<gpu>.json and .log after each step; the benchmark writes gpu-<gpu>.json, .md and
.png. The exit code is 0 only if every step that could run has passed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
SOURCES = [str(ROOT / folder) for folder in ("", "wire", "server", "client")]
REQUIREMENTS = """
import sys
if sys.version_info < (3, 11):
    sys.exit("Python 3.11 or newer is needed")
import cupy, google.protobuf, grpc, numpy, pytest, torch
assert torch.zeros(1, device="cuda").item() == 0
print(*(f"{each.__name__} {each.__version__}" for each in (cupy, numpy, torch, grpc)), sep=", ")
print(torch.cuda.get_device_name())
"""
REQUIREMENTS_S = 120
SANITIZER = "compute-sanitizer"
# The project's own options need plugins of pytest.
PYTEST = (sys.executable, "-m", "pytest", "-q", "-W", "default", "-p", "no:cacheprovider")
PYTEST += ("-o", "addopts=--import-mode=importlib")
PASSED, FAILED, TIMED_OUT, NOT_RUN = "passed", "failed", "timed out", "not run"


class Step(NamedTuple):
    """A step of the check.

    Attributes:
        name: name in the report.
        limit_s: seconds after which the step is killed.
        command: command line; empty if the step cannot run.
        reason: reason why it cannot run.
        junit: report of pytest; a skipped test in it is a failure.
    """

    name: str
    limit_s: float
    command: tuple[str, ...]
    reason: str = ""
    junit: Path | None = None


def steps() -> Iterator[Step]:
    """Yield all steps. The benchmark comes before the optional steps, and the slowest is last."""
    yield Step("kernels", 150, (sys.executable, "scripts/gpu/load_kernels.py"))
    yield pytest_step("tests", 120, "tests/gpu/test_on_device.py")
    yield Step("benchmark", 240, (sys.executable, "-m", "benchmarks.gpu"))
    if all(map(importlib.util.find_spec, ("hypothesis", "ml_dtypes"))):
        files = (f"tests/gpu/test_{name}.py" for name in ("bits", "norms", "positions"))
        yield pytest_step("random tests", 120, *files, "-k", "device and not shim")
    else:
        yield Step("random tests", 0, (), "hypothesis or ml_dtypes is not installed")
    found = sanitizer()
    for tool in ("memcheck", "racecheck"):
        if not found:
            yield Step(tool, 90, (), f"{SANITIZER} is not installed")
            continue
        # Failed API calls are not errors: libraries probe for optional features of the driver.
        more = ("--report-api-errors", "no") if tool == "memcheck" else ()
        tests = (*PYTEST, "tests/gpu/test_on_device.py", "-k", "short")
        yield Step(tool, 90, (found, "--tool", tool, *more, "--error-exitcode", "9", *tests))


def pytest_step(name: str, limit_s: float, *arguments: str) -> Step:
    """Return a step that runs pytest."""
    report = BUILD / f"gpu-check-{name.replace(' ', '-')}.xml"
    return Step(name, limit_s, (*PYTEST, *arguments, f"--junit-xml={report}"), junit=report)


def sanitizer() -> str | None:
    """Return the path of compute-sanitizer, or None if it is not installed."""
    places = [
        Path(shutil.which(SANITIZER) or ""),
        *Path("/usr/local").glob(f"cuda*/bin/{SANITIZER}"),
    ]
    return next((str(place) for place in places if place.name == SANITIZER), None)


def environment() -> dict[str, str]:
    """Return the environment of all steps: our sources, a required GPU, a shared kernel cache."""
    path = os.pathsep.join([*SOURCES, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    ours = {"PYTHONPATH": path, "POOLING_REQUIRE_GPU": "1", "PYTHONUNBUFFERED": "1"}
    return {"CUPY_CACHE_DIR": str(BUILD / "cupy")} | os.environ | ours


def run(step: Step, limit_s: float, log: IO[str]) -> dict[str, Any]:
    """Run a step, print its output and copy it to the log; return the row of the report."""
    about = {"step": step.name, "limit_s": round(limit_s)}
    tee(log, f"== {step.name}\n")
    if not step.command or limit_s <= 0:
        reason = step.reason or "no time was left"
        tee(log, f"{NOT_RUN}: {reason}\n")
        return {**about, "status": NOT_RUN, "seconds": 0, "last_line": reason}
    if step.junit:
        step.junit.unlink(missing_ok=True)
    start, last = time.monotonic(), ""
    with subprocess.Popen(
        step.command,
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as process:
        killed = threading.Event()
        timer = threading.Timer(limit_s, lambda: (killed.set(), kill(process)))
        timer.start()
        for line in process.stdout or ():
            tee(log, line)
            last = line.strip() or last
        code = process.wait()
        timer.cancel()
        kill(process)  # also the processes that it started
    status = TIMED_OUT if killed.is_set() else FAILED if code else PASSED
    seconds = round(time.monotonic() - start, 1)
    row = {**about, "status": status, "seconds": seconds, "exit_code": code, "last_line": last}
    return row | (test_counts(step.junit, status) if step.junit else {})


def test_counts(junit: Path, status: str) -> dict[str, Any]:
    """Return the counts of tests, and the status "failed" if a test was skipped."""
    try:
        suite = next(ElementTree.parse(junit).getroot().iter("testsuite"))
    except (OSError, ElementTree.ParseError):  # pytest was killed before or while it wrote
        return {}
    names = ("tests", "failures", "errors", "skipped")
    numbers = {name: int(suite.get(name, 0)) for name in names}
    return numbers | ({"status": FAILED} if numbers["skipped"] and status == PASSED else {})


def kill(process: subprocess.Popen[str]) -> None:
    """Kill all processes of a step."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def tee(log: IO[str], text: str) -> None:
    """Print a text and append it to the log."""
    print(text, end="", flush=True)
    log.write(text)
    log.flush()


def check(every: Iterator[Step], output: Path, device: str, deadline: float) -> int:
    """Run the steps and write the report after each; return the exit code.

    Args:
        every: steps to run.
        output: folder of the report and the log.
        device: name of the GPU.
        deadline: end of all steps, in seconds of `time.monotonic`.
    """
    sys.path.insert(0, str(ROOT))
    from benchmarks import report

    name = f"gpu-check-{report.slug(device)}"
    rows: list[dict[str, Any]] = []
    output.mkdir(parents=True, exist_ok=True)
    BUILD.mkdir(exist_ok=True)
    with (output / f"{name}.log").open("w") as log:
        tee(log, f"== {device}\n")
        for step in every:
            limit_s = min(step.limit_s, deadline - time.monotonic())
            if step.name == "benchmark" and limit_s > 0:
                more = ("--output", str(output.resolve()), "--seconds", f"{limit_s - 30:.0f}")
                step = step._replace(command=(*step.command, *more))
            rows.append(run(step, limit_s, log))
            report.write(name, "make gpu-check", rows, output, device=device)
        tee(log, "== all\n")
        for row in rows:
            line = f"{row['seconds']:6} s  {row['last_line']}"
            tee(log, f"{row['step']:13} {row['status']:10} {line}\n")
    bad = [row for row in rows if row["status"] in (FAILED, TIMED_OUT)]
    too_late = [row for row in rows if row["last_line"] == "no time was left"]
    return 1 if bad or too_late else 0


def device_name() -> str:
    """Return the name of the GPU, as PyTorch gives it.

    Raises:
        SystemExit: there is no usable GPU, or a package is missing.
    """
    try:
        done = subprocess.run(
            (sys.executable, "-c", REQUIREMENTS),
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=REQUIREMENTS_S,
        )
    except subprocess.TimeoutExpired:
        raise SystemExit(f"error: the GPU did not respond within {REQUIREMENTS_S} s") from None
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise SystemExit(f"error: no usable GPU, or a package is missing: {reason}")
    *_, versions, device = done.stdout.strip().splitlines()
    print(versions, flush=True)
    return device


def main(every: Callable[[], Iterator[Step]] = steps) -> int:
    """Parse the command line and run the check; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results", help="a folder")
    parser.add_argument("--seconds", type=float, default=570, help="time limit of all steps")
    arguments = parser.parse_args()
    deadline = time.monotonic() + arguments.seconds  # includes the time to find the GPU
    return check(every(), arguments.output, device_name(), deadline)


if __name__ == "__main__":
    sys.exit(main())
