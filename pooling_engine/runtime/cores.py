"""Number of CPU cores that this process may use: CPU affinity and container quotas."""

from __future__ import annotations

import math
import os
from pathlib import Path

_VERSION_2 = "sys/fs/cgroup"
_VERSION_1 = "sys/fs/cgroup/cpu"


def usable_cores(root: Path = Path("/")) -> int:
    """Return the number of usable cores: the affinity mask or the CPU quota, if that is less.

    macOS and Windows have no affinity mask; all cores count there.

    Args:
        root: parent of /proc and /sys.
    """
    return max(1, math.ceil(min([_permitted(), *_quotas(root)])))


def _permitted() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path) -> list[float]:
    """Return the CPU quota of each cgroup of this process, in cores."""
    quotas = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            quotas += [_version_2(folder) for folder in _folders(root / _VERSION_2, path)]
        elif "cpu" in controllers.split(","):
            quotas += [_version_1(folder) for folder in _folders(root / _VERSION_1, path)]
    return [quota for quota in quotas if quota is not None]


def _folders(mount: Path, path: str) -> list[Path]:
    """Return the folders of a group and of all its parent groups."""
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
