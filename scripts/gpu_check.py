"""Everything that needs an NVIDIA card, in one run: kernels, tests, benchmark, compute-sanitizer.

python3 scripts/gpu_check.py --output benchmarks/results

Needs no network and no installation, only what `python3` has: NumPy, CuPy, PyTorch, pytest, grpcio
and protobuf. Every step has its own limit of time, all together --seconds. Writes
gpu-check-<card>.json and .log after each step, and the benchmark writes gpu-<card>.json, .md and
.png. The exit code is 0 only if every step passed that could be run; which could not is said.
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

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
SOURCES = [str(ROOT / folder) for folder in ("", "wire", "server", "client")]
FIRST = """
import sys
if sys.version_info < (3, 11):
    sys.exit("Python 3.11 or newer is needed")
import cupy, google.protobuf, grpc, numpy, pytest, torch
assert torch.zeros(1, device="cuda").item() == 0
print(*(f"{each.__name__} {each.__version__}" for each in (cupy, numpy, torch, grpc)), sep=", ")
print(torch.cuda.get_device_name())
"""
FIRST_S = 120
SANITIZER = "compute-sanitizer"
PYTEST = (sys.executable, "-m", "pytest", "-q", "-W", "default", "-p", "no:cacheprovider")
PASSED, FAILED, TIMED_OUT, NOT_RUN = "passed", "failed", "timed out", "not run"


class Step(NamedTuple):
    """One step.

    Attributes:
        limit_s: after which it is ended.
        command: empty where it cannot be run.
        why_not: and why.
        tests: where pytest writes what it ran; none of it may be skipped.
    """

    name: str
    limit_s: float
    command: tuple[str, ...]
    why_not: str = ""
    tests: Path | None = None


def steps() -> Iterator[Step]:
    """All of them; the benchmark before what can only take time from it, the slowest last."""
    yield Step("kernels", 150, (sys.executable, "scripts/load_kernels.py"))
    yield tests("tests", 120, "tests/gpu/test_card.py")
    yield Step("benchmark", 240, (sys.executable, "-m", "benchmarks.gpu"))
    if all(map(importlib.util.find_spec, ("hypothesis", "ml_dtypes"))):
        files = (f"tests/gpu/test_{name}.py" for name in ("bits", "norms", "positions"))
        yield tests("random tests", 120, *files, "-k", "card and not shim")
    else:
        yield Step("random tests", 0, (), "hypothesis or ml_dtypes is not installed")
    found, why_not = sanitizer(), f"{SANITIZER} is not installed"
    for tool in ("memcheck", "racecheck"):
        # Refused calls of CUDA are not what it looks for: libraries try what a driver may not have.
        more = ("--report-api-errors", "no") if tool == "memcheck" else ()
        command = (found, "--tool", tool, *more, "--error-exitcode", "9", *PYTEST) if found else ()
        short = ("tests/gpu/test_card.py", "-k", "short")
        yield Step(tool, 90, command and (*command, *short), "" if found else why_not)


def tests(name: str, limit_s: float, *what: str) -> Step:
    """A step of pytest."""
    report = BUILD / f"gpu-check-{name.replace(' ', '-')}.xml"
    return Step(name, limit_s, (*PYTEST, *what, f"--junit-xml={report}"), tests=report)


def sanitizer() -> str | None:
    """Where compute-sanitizer is, if anywhere."""
    places = [
        Path(shutil.which(SANITIZER) or ""),
        *Path("/usr/local").glob(f"cuda*/bin/{SANITIZER}"),
    ]
    return next((str(place) for place in places if place.name == SANITIZER), None)


def environment() -> dict[str, str]:
    """For all steps: our sources, a card that must be there, kernels kept between steps."""
    path = os.pathsep.join([*SOURCES, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    ours = {"PYTHONPATH": path, "POOLING_REQUIRE_GPU": "1", "PYTHONUNBUFFERED": "1"}
    return {"CUPY_CACHE_DIR": str(BUILD / "cupy")} | os.environ | ours


def run(step: Step, limit_s: float, log: IO[str]) -> dict[str, Any]:
    """Runs a step; what it says is shown, and kept in the log."""
    about = {"step": step.name, "limit_s": round(limit_s)}
    say(log, f"== {step.name}\n")
    if not step.command or limit_s <= 0:
        why_not = step.why_not or "no time was left"
        say(log, f"{NOT_RUN}: {why_not}\n")
        return {**about, "status": NOT_RUN, "seconds": 0, "said": why_not}
    if step.tests:
        step.tests.unlink(missing_ok=True)
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
        ended = threading.Event()
        timer = threading.Timer(limit_s, lambda: (ended.set(), end(process)))
        timer.start()
        for line in process.stdout or ():
            say(log, line)
            last = line.strip() or last
        code = process.wait()
        timer.cancel()
        end(process)  # and whoever it started
    status = TIMED_OUT if ended.is_set() else FAILED if code else PASSED
    seconds = round(time.monotonic() - start, 1)
    result = {**about, "status": status, "seconds": seconds, "exit_code": code, "said": last}
    return result | (counts(step.tests, status) if step.tests else {})


def counts(report: Path, status: str) -> dict[str, Any]:
    """How many tests there were; skipped ones are a failure."""
    try:
        suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
    except (OSError, ElementTree.ParseError):  # it was ended before, or while it wrote
        return {}
    names = ("tests", "failures", "errors", "skipped")
    numbers = {name: int(suite.get(name, 0)) for name in names}
    return numbers | ({"status": FAILED} if numbers["skipped"] and status == PASSED else {})


def end(process: subprocess.Popen[str]) -> None:
    """Ends the step's own session of processes."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def say(log: IO[str], text: str) -> None:
    """Shows a text, and keeps it."""
    print(text, end="", flush=True)
    log.write(text)
    log.flush()


def check(every: Iterator[Step], output: Path, card: str, deadline: float) -> int:
    """Runs the steps, and writes what is known after each; returns the exit code.

    Args:
        deadline: of all steps, by `time.monotonic`.
    """
    sys.path.insert(0, str(ROOT))
    from benchmarks import report

    name = f"gpu-check-{report.slug(card)}"
    results: list[dict[str, Any]] = []
    output.mkdir(parents=True, exist_ok=True)
    BUILD.mkdir(exist_ok=True)
    with (output / f"{name}.log").open("w") as log:
        say(log, f"== {card}\n")
        for step in every:
            limit_s = min(step.limit_s, deadline - time.monotonic())
            if step.name == "benchmark" and limit_s > 0:
                more = ("--output", str(output.resolve()), "--seconds", f"{limit_s - 30:.0f}")
                step = step._replace(command=(*step.command, *more))
            results.append(run(step, limit_s, log))
            report.write(name, "make gpu-check", results, output, card=card)
        say(log, "== all\n")
        for result in results:
            said = f"{result['seconds']:6} s  {result['said']}"
            say(log, f"{result['step']:13} {result['status']:10} {said}\n")
    bad = [each for each in results if each["status"] in (FAILED, TIMED_OUT)]
    hasty = [each for each in results if each["said"] == "no time was left"]
    return 1 if bad or hasty else 0


def card_name() -> str:
    """The card, as PyTorch names it.

    Raises:
        SystemExit: there is none, or a library is missing.
    """
    try:
        done = subprocess.run(
            (sys.executable, "-c", FIRST),
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=FIRST_S,
        )
    except subprocess.TimeoutExpired:
        raise SystemExit(f"error: the card gives no answer within {FIRST_S} s") from None
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise SystemExit(f"error: no card to check, or a library is missing: {reason}")
    *_, versions, card = done.stdout.strip().splitlines()
    print(versions, flush=True)
    return card


def main(every: Callable[[], Iterator[Step]] = steps) -> int:
    """Reads the flags, and checks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results")
    parser.add_argument("--seconds", type=float, default=570, help="for all of it")
    arguments = parser.parse_args()
    deadline = time.monotonic() + arguments.seconds  # the first look at a card takes some, too
    return check(every(), arguments.output, card_name(), deadline)


if __name__ == "__main__":
    sys.exit(main())
