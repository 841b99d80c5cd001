"""Clients in forked processes: each gets new connections and new shared memory there."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

from pooling_engine import UnsupportedError


class Renewable(Protocol):
    """Object that continues in a forked process."""

    def _renew(self) -> None:
        """Replace what a process cannot share with its parent."""


_is_forked = False
_unfinished: list[object] = []  # streams of the parent, whose finalizers would wait for its threads
_watched: weakref.WeakSet[Renewable] = weakref.WeakSet()


def renew_after_fork(client: Renewable) -> None:
    """Call the method ``_renew`` of an object in every forked process."""
    _watched.add(client)


def is_forked() -> bool:
    """Return whether this process was forked from one that had imported the client."""
    return _is_forked


class Origin:
    """The process in which a stream was opened."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    @property
    def is_here(self) -> bool:
        """True if this is that process."""
        return os.getpid() == self._pid

    def check(self) -> None:
        """Reject the stream in a forked process.

        Raises:
            UnsupportedError: this is another process.
        """
        if not self.is_here:
            raise UnsupportedError(
                "this stream was opened before the process was forked; open another one here"
            )


def keep_unfinished(stream: object) -> None:
    """Leave a stream of the parent open: ending it would wait for threads of the parent."""
    _unfinished.append(stream)


def _renew_all() -> None:
    global _is_forked
    _is_forked = True
    for client in list(_watched):
        client._renew()


if hasattr(os, "register_at_fork"):  # Windows cannot fork
    os.register_at_fork(after_in_child=_renew_all)
