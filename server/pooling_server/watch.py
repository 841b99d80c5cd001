"""Asks a device that nobody may be calling whether it still answers."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress

from pooling_engine import PoolingError, UnavailableError
from pooling_engine.backends import Backend
from pooling_engine.errors import lost_device

PATIENCE = 6  # times as long as between two questions an answer may take


class Watch:
    """Asks every few seconds, until it is stopped, or finds the device lost or hung.

    Args:
        backend: whose device is asked; only "cupy" has one.
        every_s: seconds between two questions, and of patience for each; 0 asks none.
        lose: told once what is wrong, from a thread of the watch.
    """

    def __init__(
        self, backend: Backend, every_s: float, lose: Callable[[PoolingError], None]
    ) -> None:
        self._backend, self._every_s, self._lose = backend, every_s, lose
        self._stopped = threading.Event()

    def start(self) -> None:
        """Begins to ask."""
        if self._every_s and self._backend.name == "cupy":
            threading.Thread(target=self._run, name="device-watch", daemon=True).start()

    def stop(self) -> None:
        """Asks no more; waits for nothing."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            error = self._ask()
            if error is not None and not self._stopped.is_set():
                self._lose(error)
                return

    def _ask(self) -> PoolingError | None:
        """What is wrong with the device, if anything.

        It is asked by another thread, which a device that hangs keeps. Seconds are counted as they
        are waited for: those in which the whole process stood still are none.
        """
        answers: queue.SimpleQueue[PoolingError | None] = queue.SimpleQueue()
        asking = threading.Thread(target=lambda: answers.put(self._answer()), daemon=True)
        asking.start()
        for _ in range(PATIENCE):
            with suppress(queue.Empty):
                return answers.get(timeout=self._every_s)
        return lost_device(f"no answer for {PATIENCE * self._every_s:g} s")

    def _answer(self) -> PoolingError | None:
        try:
            self._backend.probe()
        except MemoryError:  # it answers, but has no room
            return None
        except UnavailableError as error:
            return error
        except Exception as error:
            return lost_device(str(error))
        return None
