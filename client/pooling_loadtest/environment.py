"""Hardware and versions of the generator."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

from pooling_loadtest.runs import Environment

_PACKAGES = ("pooling-service", "numpy", "grpcio", "protobuf")


def environment() -> Environment:
    """Return Python, platform, processor, cores and versions of packages."""
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(terse=True),
        cpu=_cpu(),
        cores=os.cpu_count(),
        versions={name: _version(name) for name in _PACKAGES},
    )


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
