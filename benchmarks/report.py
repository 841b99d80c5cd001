"""Result files and Markdown tables that all benchmarks share."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
LIBRARIES = (
    "numpy",
    "numba",
    "grpcio",
    "protobuf",
    "pyarrow",
    "torch",
    "onnxruntime",
    "pooling-service",
)


def spread(values: Iterable[float]) -> dict[str, float]:
    """Return the median, the smallest and the largest of repeated measurements."""
    ordered = sorted(float(value) for value in values)
    return {
        "median": round(statistics.median(ordered), 5),
        "min": round(ordered[0], 5),
        "max": round(ordered[-1], 5),
    }


def samples(call: Callable[[], Any], count: int) -> list[float]:
    """Return the milliseconds of each of `count` calls."""
    taken = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        taken.append((time.perf_counter() - start) * 1e3)
    return taken


def interleaved(
    names: list[str], rounds: int, measure: Callable[[str], Any]
) -> dict[str, list[Any]]:
    """Measure every name once per round, reversing the order from round to round."""
    taken: dict[str, list[Any]] = {name: [] for name in names}
    for round_ in range(rounds):
        for name in names if round_ % 2 else reversed(names):
            taken[name].append(measure(name))
    return taken


def slug(device: str) -> str:
    """Return the name of a GPU as it appears in file names."""
    return re.sub("[^a-z0-9]+", "-", device.lower().replace("nvidia", "")).strip("-")


def machine() -> dict[str, object]:
    """Return the CPU, its cores, the memory and the library versions."""
    cpu = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in LIBRARIES},
    }


def write(
    name: str, command: str, rows: list[dict], folder: Path = RESULTS, **more: object
) -> Path:
    """Write <name>.json, by default to benchmarks/results/, and return its path.

    Args:
        more: facts about all rows, such as the number of rounds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    result = {"date": date, "command": command, "machine": machine(), **more, "rows": rows}
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result, indent=2) + "\n")
    return part.replace(path)  # atomic: an interrupted run keeps the previous file


def table(head: list[str], lines: list[list[str]], alignment: str) -> str:
    """Return a Markdown table; `alignment` is the rule of all columns except the first."""
    rules = ["---"] + [alignment] * (len(head) - 1)
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rules, *lines]) + "\n"


def cell(values: dict[str, float] | None) -> str:
    """Return "median (min-max)" with three significant digits, or a dash for None."""
    return "{median:.3g} ({min:.3g}-{max:.3g})".format(**values) if values else "—"


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
