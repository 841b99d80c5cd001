"""Clients in forked processes: each gets new connections and new shared memory there."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Renewable(Protocol):
    """Object that continues in a forked process."""

    def _renew(self) -> None:
        """Replace what a process cannot share with its parent."""


_is_forked = False
_watched: weakref.WeakSet[Renewable] = weakref.WeakSet()


def renew_after_fork(client: Renewable) -> None:
    """Call the method ``_renew`` of an object in every forked process."""
    _watched.add(client)


def is_forked() -> bool:
    """Return whether this process was forked from one that had imported the client."""
    return _is_forked


def _renew_all() -> None:
    global _is_forked
    _is_forked = True
    for client in list(_watched):
        client._renew()


if hasattr(os, "register_at_fork"):  # Windows cannot fork
    os.register_at_fork(after_in_child=_renew_all)
