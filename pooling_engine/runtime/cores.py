"""How many cores this process may use: what the scheduler allows, and the container."""

from __future__ import annotations

import math
import os
from pathlib import Path

_VERSION_2 = "sys/fs/cgroup"
_VERSION_1 = "sys/fs/cgroup/cpu"


def usable_cores(root: Path = Path("/")) -> int:
    """The cores that the process may run on, or as many as its control groups grant time for.

    Args:
        root: where /proc and /sys are.
    """
    granted = [len(os.sched_getaffinity(0)), *_quotas(root)]
    return max(1, math.ceil(min(granted)))


def _quotas(root: Path) -> list[float]:
    """The processor time per time that each control group of the process grants, in cores."""
    quotas = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            quotas += [_version_2(folder) for folder in _folders(root / _VERSION_2, path)]
        elif "cpu" in controllers.split(","):
            quotas += [_version_1(folder) for folder in _folders(root / _VERSION_1, path)]
    return [quota for quota in quotas if quota is not None]


def _folders(mount: Path, path: str) -> list[Path]:
    """The folder of a group and those of all groups that it is in."""
    own = mount / path.lstrip("/")
    return [own, *(parent for parent in own.parents if parent.is_relative_to(mount))]


def _version_2(folder: Path) -> float | None:
    quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _version_1(folder: Path) -> float | None:
    quota = _read(folder / "cpu.cfs_quota_us").strip()
    period = _read(folder / "cpu.cfs_period_us").strip()
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
