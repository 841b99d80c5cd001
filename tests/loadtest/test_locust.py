"""The Locust adapter: a master and two workers, as processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support.processes import address_in, process
from tests.support.waiting import quiet_port

_LOCUSTFILE = Path(__file__).with_name("locustfile.py")


def locust(*flags: object, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), *map(str, flags)]
    return subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_two_workers_report_latencies_failures_and_wrong_answers(tmp_path: Path) -> None:
    port = quiet_port()
    with process("--listen", "127.0.0.1:0", "--backend", "numpy") as (_, banner):
        load = ("--users", 4, "--spawn-rate", 100, "--run-time", "30s", "--stop-timeout", 5)
        master = ("--master", "--master-bind-port", port, "--expect-workers", 2)
        files = ("--json-file", "stats", "--csv", "stats", "--exit-code-on-error", 3)
        host = ("--host", address_in(banner))
        runs = [locust("--headless", *master, *load, *files, *host, cwd=tmp_path)]
        runs += [locust("--worker", "--master-port", port, cwd=tmp_path) for _ in range(2)]
        try:
            outputs = [run.communicate(timeout=45) for run in runs]
        finally:
            for run in runs:
                run.kill()
                run.wait()
    assert runs[0].returncode == 3, outputs  # there were failures
    assert [run.returncode for run in runs[1:]] == [0, 0], outputs
    rows = {row["name"]: row for row in json.loads((tmp_path / "stats.json").read_text())}
    for name in ("Forward", "Backward"):
        assert rows[name]["num_requests"] > 10
        assert rows[name]["num_failures"] == 0
    assert rows["Forward"]["total_content_length"] == rows["Forward"]["num_requests"] * (128 + 32)
    for name in ("rejected", "wrong"):
        assert rows[name]["num_failures"] == rows[name]["num_requests"] > 10
    keys = [float(key) for key in rows["Forward"]["response_times"]]
    assert any(key != round(key) for key in keys)  # finer than a millisecond
    failures = (tmp_path / "stats_failures.csv").read_text()
    assert "InvalidTensorError" in failures
    assert "differs from the result of the local engine" in failures


_CONNECTIONS = """
import sys
import pooling_client.locust
import numpy, psutil
from locust.env import Environment
from pooling_client import PoolSpec

class Layer(pooling_client.locust.PoolingUser):
    host = sys.argv[1]

users = [Layer(Environment()) for _ in range(3)]
for user in users:
    user.on_start()
    user.client.forward(numpy.ones((1, 1, 4, 4)), PoolSpec("max", kernel=2))
port = int(sys.argv[1].rpartition(":")[2])
found = [each for each in psutil.Process().net_connections() if each.raddr]
print(sum(each.raddr.port == port for each in found))
for user in users:
    user.on_stop()
"""


def test_each_user_has_a_connection(tmp_path: Path) -> None:
    with process("--listen", "127.0.0.1:0", "--backend", "numpy") as (_, banner):
        command = [sys.executable, "-c", _CONNECTIONS, address_in(banner)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=45, cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("3\n", 0), done.stderr
