"""Detection of changed files: certificates and tokens are replaced while the server runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

_log = logging.getLogger("pooling_server")
INTERVAL_S = 1.0

Stamps = tuple[tuple[int, int, int] | None, ...]


def stamps_of(paths: Sequence[Path]) -> Stamps:
    """Return inode, size and time of each file, following links; None for one that is missing."""
    stamps: list[tuple[int, int, int] | None] = []
    for path in paths:
        stamps.append(None)
        with suppress(OSError):
            found = path.stat()
            stamps[-1] = found.st_ino, found.st_size, found.st_mtime_ns
    return tuple(stamps)


class WatchedFiles:
    """Files with a function that reads them, which is called again when one of them changes.

    If the new files cannot be used, the error is logged and the previous content stays in use.

    Args:
        paths: the files.
        read: reads them; raises OSError or ValueError if they are not valid.
    """

    def __init__(self, paths: Sequence[Path], read: Callable[[], None]) -> None:
        self._paths, self._read = paths, read
        self._stamps = stamps_of(paths)

    def reload(self, *, only_if_changed: bool) -> None:
        """Read the files again.

        Args:
            only_if_changed: do nothing if the files are those of the last call.
        """
        stamps = stamps_of(self._paths)
        if only_if_changed and stamps == self._stamps:
            return
        names = ", ".join(map(str, self._paths))
        try:
            self._read()
        except (OSError, ValueError) as error:
            if stamps_of(self._paths) != stamps:
                return  # they are being replaced; the next call reads them
            _log.error("%s cannot be used; the previous content stays in use: %s", names, error)
        else:
            _log.info("read %s", names)
        self._stamps = stamps


class FileWatch:
    """Thread that reads files again within a second or two after they have changed."""

    def __init__(self) -> None:
        self._files: list[WatchedFiles] = []
        self._stopped = threading.Event()

    def add(self, files: WatchedFiles) -> None:
        """Watch files; call this before `start`."""
        self._files.append(files)

    def start(self) -> None:
        """Start to watch, if there are files."""
        if self._files:
            threading.Thread(target=self._watch, name="pooling-files", daemon=True).start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()

    def reload(self) -> None:
        """Read all files now, changed or not."""
        for files in self._files:
            files.reload(only_if_changed=False)

    def _watch(self) -> None:
        while not self._stopped.wait(INTERVAL_S):
            for files in self._files:
                files.reload(only_if_changed=True)
