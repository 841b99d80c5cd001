"""Names of CUDA devices: parsing of `--devices`, and the device that each worker sees."""

from __future__ import annotations

import re
from collections.abc import Mapping

VISIBLE = "CUDA_VISIBLE_DEVICES"  # CUDA reads it once, when a process first uses CUDA


def split_devices(devices: str) -> list[str]:
    """Return the devices in a comma-separated list; an empty string has none.

    Raises:
        ValueError: a device is neither a number nor a UUID, or is listed twice.
    """
    names = [name.strip() for name in devices.split(",")] if devices else []
    for name in names:
        if not re.fullmatch(r"[0-9]+|(GPU|MIG)-[0-9A-Za-z/-]+", name):
            raise ValueError(
                f"devices is {devices!r}; it must be a comma-separated list of CUDA device "
                "numbers or UUIDs (GPU-… or MIG-…)"
            )
    names = [str(int(name)) if name.isdigit() else name for name in names]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"devices is {devices!r}; {name} is listed twice")
    return names


def environment_for(device: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that sees only one device.

    Args:
        device: a UUID, or a number that counts the devices visible to this process.
        environment: environment of this process.

    Raises:
        ValueError: this process sees fewer devices than the number requires.
    """
    visible = environment.get(VISIBLE)
    if visible is not None and device.isdigit():
        names = [name.strip() for name in visible.split(",") if name.strip()]
        if int(device) >= len(names):
            raise ValueError(
                f"devices includes {device}, but {VISIBLE} is {visible!r}; "
                f"device numbers must be below {len(names)}"
            )
        device = names[int(device)]
    return {**environment, VISIBLE: device}
