"""Time limits follow the monotonic clock, so that setting the wall clock changes none of them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("pooling_engine", "wire", "server", "client")
SUFFIXES = (".py", ".ts", ".js")
WALL_CLOCK = re.compile(
    r"\btime\.time(_ns)?\b|\bfrom time import .*\btime(_ns)?\b|datetime\.(utc)?now\(|\bDate\.now\("
)
# Timestamps of results and statistics, which people read.
TIMESTAMPS = {
    "server/pooling_server/oip/statistics.py",
    "client/pooling_loadtest/processes.py",
}


def test_only_timestamps_use_the_wall_clock() -> None:
    found = set()
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            is_other = {"node_modules", "dist", "test"} & set(path.parts)
            if is_other or path.suffix not in SUFFIXES or ".test." in path.name:
                continue
            if WALL_CLOCK.search(path.read_text()):
                found.add(path.relative_to(ROOT).as_posix())
    assert found == TIMESTAMPS
