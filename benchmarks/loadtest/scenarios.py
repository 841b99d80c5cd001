"""Run the five scenarios of `pooling loadtest` against a fresh server, and picture their reports.

Each test is `pooling loadtest HOST:PORT --scenario NAME --duration 10 --verify 0.02 --output DIR`.
Writes loadtest-scenarios.json, and a picture of each report that Chromium takes.

    python -m benchmarks.loadtest.scenarios
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import report
from pooling_cli.demo.server import COMMAND, address_in, running_server

NAMES = ("lenet-training", "resnet-inference", "many-small", "few-large", "yolo-pyramid")
OPTIONS = ("--duration", "10", "--verify", "0.02")


def picture(page: Path, target: Path) -> None:
    """Take a picture of the first screens of a report."""
    browser = shutil.which("chromium")
    if browser is None:
        raise SystemExit("chromium is missing; run scripts/debian_packages.sh chromium")
    with tempfile.TemporaryDirectory() as profile:
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
        more = (f"--user-data-dir={profile}", "--virtual-time-budget=5000")
        size, shot = "--window-size=1280,1680", f"--screenshot={target}"
        command = (browser, *options, *more, size, shot, page.resolve().as_uri())
        subprocess.run(command, check=True, capture_output=True, timeout=60)


def main() -> None:
    """Run every scenario and write the results."""
    rows: list[dict[str, Any]] = []
    with running_server(COMMAND) as banner, tempfile.TemporaryDirectory() as folder:
        target = address_in(banner)
        for name in NAMES:
            output = Path(folder) / name
            command = ("pooling", "loadtest", target, "--scenario", name, *OPTIONS)
            done = subprocess.run((*command, "--output", str(output)), check=False)
            summary = json.loads((output / "summary.json").read_text())
            shown = " ".join(command).replace(target, "HOST:PORT")
            rows.append(
                {"scenario": name, "command": shown, "exit_code": done.returncode, **summary}
            )
            picture(output / "report.html", report.RESULTS / f"loadtest-{name}.png")
    print(report.write("loadtest-scenarios", "python -m benchmarks.loadtest.scenarios", rows))


if __name__ == "__main__":
    main()
