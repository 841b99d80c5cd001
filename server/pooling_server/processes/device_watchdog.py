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
        """Asks by another thread, which a device that hangs keeps.

        It is always the same one: in a thread's first launch, CuPy asks CUDA for the free memory
        and holds Python's lock meanwhile, so that nobody could say that the device hangs.
        """
        asked: queue.SimpleQueue[bool] = queue.SimpleQueue()  # False: no more
        answers: queue.SimpleQueue[PoolingError | None] = queue.SimpleQueue()
        threading.Thread(target=self._answer_all, args=(asked, answers), daemon=True).start()
        while not self._stopped.wait(self._every_s):
            asked.put(True)
            error = self._wait_for(answers)
            if error is not None:
                if not self._stopped.is_set():
                    self._lose(error)
                break
        asked.put(False)

    def _wait_for(self, answers: queue.SimpleQueue[PoolingError | None]) -> PoolingError | None:
        """What is wrong with the device, if anything.

        Seconds are counted as they are waited for: those in which the whole process stood still
        are none.
        """
        for _ in range(PATIENCE):
            with suppress(queue.Empty):
                return answers.get(timeout=self._every_s)
        return lost_device(f"no answer for {PATIENCE * self._every_s:g} s")

    def _answer_all(
        self, asked: queue.SimpleQueue[bool], answers: queue.SimpleQueue[PoolingError | None]
    ) -> None:
        while asked.get():
            answers.put(self._answer())

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
