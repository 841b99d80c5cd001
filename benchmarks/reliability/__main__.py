"""Run the experiments, write reliability.json, and write the table of docs/reliability.md.

python -m benchmarks.reliability                # all of them: about ten minutes
python -m benchmarks.reliability overload kills # some; the other rows stay as they were
python -m benchmarks.reliability --table        # only write the document from the result
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from typing import Any

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
)
from benchmarks.reliability.serving import Row

EXPERIMENTS: dict[str, Callable[[], list[Row]]] = {
    "overload": overload.offered_load,
    "kills": restarts.killed_workers,
    "restarts": lambda: [
        *restarts.absent_server(),
        *restarts.rolling_restart(),
        *restarts.stopped_server(),
    ],
    "clients": lambda: [*clients.killed_clients(), *clients.forked_clients()],
    "hostile": hostile.attacks,
    "endings": endings.endings,
    "security": security.security,
    "resources": resources.resources,
    "clocks": clocks.set_clocks,
}


def main() -> None:
    """Run the named experiments and write their rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help=", ".join(EXPERIMENTS))
    parser.add_argument("--table", action="store_true", help="run nothing, write the document")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(EXPERIMENTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    path = report.RESULTS / "reliability.json"
    names = [] if arguments.table else arguments.names or list(EXPERIMENTS)
    for name in names:
        load = os.getloadavg()[0]
        rows: list[dict[str, Any]] = EXPERIMENTS[name]()
        for each in rows:
            each["other_load"] = round(load, 1)
            print(f"{'met   ' if each['met'] else 'MISSED'} {each['fault']}: {each['measured']}")
        # Read now: another process may have written other rows meanwhile.
        old: list[Row] = json.loads(path.read_text())["rows"] if path.exists() else []
        old = [row for row in old if row["group"] != name] + rows
        order = list(EXPERIMENTS)
        old.sort(key=lambda row: order.index(row["group"]))
        report.write("reliability", "python -m benchmarks.reliability", old)
    document.write(path)


if __name__ == "__main__":
    main()
