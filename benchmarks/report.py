"""What every benchmark's result file says beside its figures."""

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
    """The median of repeated measurements, with the smallest and the largest."""
    ordered = sorted(float(value) for value in values)
    return {
        "median": round(statistics.median(ordered), 5),
        "min": round(ordered[0], 5),
        "max": round(ordered[-1], 5),
    }


def samples(way: Callable[[], Any], calls: int) -> list[float]:
    """Milliseconds of each of so many calls."""
    taken = []
    for _ in range(calls):
        start = time.perf_counter()
        way()
        taken.append((time.perf_counter() - start) * 1e3)
    return taken


def turns(names: list[str], rounds: int, measure: Callable[[str], Any]) -> dict[str, list[Any]]:
    """What each measures in every round, the order changing from round to round."""
    taken: dict[str, list[Any]] = {name: [] for name in names}
    for round_ in range(rounds):
        for name in names if round_ % 2 else reversed(names):
            taken[name].append(measure(name))
    return taken


def slug(card: str) -> str:
    """The name of a card, as in the names of files."""
    return re.sub("[^a-z0-9]+", "-", card.lower().replace("nvidia", "")).strip("-")


def machine() -> dict[str, object]:
    """The processor, its cores, the memory and the versions that a figure depends on."""
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
    """Writes <name>.json, by default to benchmarks/results/, and returns its path.

    Args:
        more: what to say about all rows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    result = {"date": date, "command": command, "machine": machine(), **more, "rows": rows}
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result, indent=2) + "\n")
    return part.replace(path)  # at once: whoever is ended meanwhile leaves what there was


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
