"""Measure remote pooling modules: calls, bytes and training steps.

    python -m benchmarks.torch

Writes results/torch.json and prints the tables. Takes a minute.
"""

from __future__ import annotations

import re
import sys
import tempfile
from contextlib import ExitStack
from typing import Any

import pooling_engine
from benchmarks import report
from benchmarks.torch.large import bytes_of_a_step, module_over_client, training_step
from benchmarks.torch.own_part import own_part
from benchmarks.torch.small import small_calls
from benchmarks.torch.timing import cell
from pooling_cli.demo.server import running_server

ROUNDS = {"TCP": 30, "Unix socket": 150}
GOALS = {  # row, ratio of the first contender to the last, at most
    "module over client, TCP": ("ratio", 1.03),
    "module over client, Unix socket": ("ratio", 1.03),
    "module over the client's call in it, TCP": ("within", 1.03),
    "module over the client's call in it, Unix socket": ("within", 1.03),
    "step over PyTorch, Unix socket": ("ratio", 1.0),
}


def measure() -> dict[str, Any]:
    """Return all rows."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pooling-"))
        unix = f"unix:{folder}/s"
        command = (sys.executable, "-m", "pooling_server", "--listen", f"127.0.0.1:0,{unix}")
        banner = stack.enter_context(running_server(command))
        tcp = re.split("[ ,]", banner.partition("listening on ")[2])[0]
        pooling_engine.warm_up()
        servers = {"TCP": tcp, "Unix socket": unix}
        rows: dict[str, Any] = {
            f"module over client, {name}": module_over_client(server, ROUNDS[name])
            for name, server in servers.items()
        }
        return rows | {
            "step over PyTorch, Unix socket": training_step(unix),
            "bytes": bytes_of_a_step(),
            "small calls, us": small_calls(servers),
            "own part, us": own_part(),
        }


def markdown(rows: dict[str, Any]) -> str:
    """Return the tables of the results."""
    bytes_ = rows["bytes"]
    goals = []
    for name, (key, goal) in GOALS.items():
        row = rows[name.replace("the client's call in it", "client")]
        goals.append([name, cell(row[key]), f"{goal:g}"])
    share = bytes_["backward sends"] / bytes_["input"]
    goals.append(["bytes that backward sends over bytes of the input", f"{share:.4f}", "0.3333"])
    times = [
        [name, each, cell(values)]
        for name, row in rows.items()
        for each, values in row.get("ms", {}).items()
    ]
    sizes = [[name, f"{count / 1e6:.2f}"] for name, count in bytes_.items()]
    tables = [
        report.table(["ratio", "measured", "at most"], goals, "---:"),
        report.table(["row", "contender", "ms"], times, "---:"),
        report.table(["tensors and messages of a step", "MB"], sizes, "---:"),
        _columns("call in a LeNet step, us", rows["small calls, us"]),
        _columns("call whose client returns at once, us", rows["own part, us"]),
    ]
    return "\n".join(tables)


def _columns(head: str, rows: dict[str, dict[str, Any]]) -> str:
    """Return a table with a line for each contender."""
    names = next(iter(rows.values()))
    lines = [[name, *(cell(values[name]) for values in rows.values())] for name in names]
    return report.table([head, *rows], lines, "---:")


if __name__ == "__main__":
    measured = measure()
    report.write("torch", "python -m benchmarks.torch", measured)
    print(markdown(measured))
