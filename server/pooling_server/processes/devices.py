"""CUDA devices by their names: what `--devices` may say, and what a worker is shown of them."""

from __future__ import annotations

import re
from collections.abc import Mapping

VISIBLE = "CUDA_VISIBLE_DEVICES"  # what CUDA reads, once, when a process first uses it


def split_devices(devices: str) -> list[str]:
    """The devices of a list with commas; none for an empty one.

    Raises:
        ValueError: one is no number and no UUID, or is there twice.
    """
    names = [name.strip() for name in devices.split(",")] if devices else []
    for name in names:
        if not re.fullmatch(r"[0-9]+|(GPU|MIG)-[0-9A-Za-z/-]+", name):
            raise ValueError(
                f"devices is {devices!r}; it must be numbers of CUDA devices, or their UUIDs "
                "(GPU-… or MIG-…), with commas between"
            )
    names = [str(int(name)) if name.isdigit() else name for name in names]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"devices is {devices!r}; {name} is there twice")
    return names


def environment_for(device: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that sees one device alone.

    Args:
        device: a number, or a UUID; a number counts those that are visible here.
        environment: of this process.

    Raises:
        ValueError: no so many devices are visible here.
    """
    visible = environment.get(VISIBLE)
    if visible is not None and device.isdigit():
        names = [name.strip() for name in visible.split(",") if name.strip()]
        if int(device) >= len(names):
            raise ValueError(
                f"devices names {device}, but {VISIBLE} is {visible!r}: "
                f"it must be a number below {len(names)}"
            )
        device = names[int(device)]
    return {**environment, VISIBLE: device}
