"""Coverage-guided fuzz inputs through whole calls, in this process: no crash, hang or INTERNAL.

    python -m benchmarks.reliability.fuzzing --inputs 1000000

Needs the extra `fuzz`; `make fuzz-calls` installs it. Writes fuzzing.json.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import report
from benchmarks.reliability.serving import Row, row

INPUTS = 1_000_000
MOST_MB = 64  # growth of the fuzzer, which keeps its corpus in memory
COMMAND = [sys.executable, "-m", "tests.server.fuzzing.fuzz_calls"]
_PROGRESS = re.compile(r"^#(\d+)\s+(\w+).* cov: (\d+) .* corp: (\d+)/.* rss: (\d+)Mb", re.M)


def fuzzed(inputs: int, folder: Path) -> list[Row]:
    """Run the fuzzer; return its row.

    Args:
        inputs: number of inputs.
        folder: receives the corpus, and inputs that fail.
    """
    options = [f"-runs={inputs}", f"-artifact_prefix={folder}-", "-rss_limit_mb=1024"]
    done = subprocess.run([*COMMAND, str(folder), *options], capture_output=True, text=True)
    log = done.stderr
    steps = [(int(n), what, *map(int, rest)) for n, what, *rest in _PROGRESS.findall(log)]
    if not steps:
        raise RuntimeError(log[-2000:])
    begin, end = next(step for step in steps if step[1] == "INITED"), steps[-1]
    failure = "" if done.returncode == 0 else log.strip().splitlines()[-1]
    grown = end[4] - begin[4]
    text = (
        f"{end[0]:,} inputs: {failure or 'no crash, hang or INTERNAL'}; "
        f"{end[2]:,} branches reached, {end[3]} cases kept; memory {begin[4]} to {end[4]} MB"
    )
    return [
        row(
            "fuzzing",
            f"{inputs:,} coverage-guided fuzz inputs",
            "no crash, hang, INTERNAL or growth of memory; corpus kept",
            not failure and end[0] >= inputs and grown <= MOST_MB,
            text,
            inputs=end[0],
            branches=end[2],
            corpus=end[3],
            memory_mb=[begin[4], end[4]],
        )
    ]


def main() -> None:
    """Fuzz, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=INPUTS)
    parser.add_argument("--corpus", type=Path, help="folder that keeps the new cases")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = fuzzed(arguments.inputs, arguments.corpus or Path(folder) / "corpus")
    command = f"python -m benchmarks.reliability.fuzzing --inputs {arguments.inputs}"
    report.write("fuzzing", command, rows)
    print(rows[0]["measured"])


if __name__ == "__main__":
    main()
