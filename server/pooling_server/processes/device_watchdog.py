"""Watchdog of the GPU: probes it periodically, even when no calls use it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress

from pooling_engine import PoolingError, UnavailableError
from pooling_engine.errors import lost_device

TIMEOUT_INTERVALS = 6  # probe intervals that an answer may take

Probe = Callable[[], None]
_Requests = queue.SimpleQueue[bool]  # True: probe; False: end
_Answers = queue.SimpleQueue[PoolingError | None]


class DeviceWatchdog:
    """Periodic probes of a device, until the watchdog is stopped or the device is lost or hangs.

    Args:
        probe: `DeviceBackend.probe` of the backend whose device is watched; None without a device.
        interval_s: seconds between two probes; 0 disables probing.
        on_lost: called once with the error, from a thread of the watchdog.
    """

    def __init__(
        self,
        probe: Probe | None,
        interval_s: float,
        on_lost: Callable[[PoolingError], None],
    ) -> None:
        self._probe, self._interval_s, self._on_lost = probe, interval_s, on_lost
        self._stopped = threading.Event()

    def start(self) -> None:
        """Start probing, if there is a device."""
        if self._interval_s and self._probe is not None:
            threading.Thread(
                target=self._run, args=(self._probe,), name="device-watchdog", daemon=True
            ).start()

    def stop(self) -> None:
        """Stop probing, without waiting for a probe in progress."""
        self._stopped.set()

    def _run(self, probe: Probe) -> None:
        """Send probe requests to a second thread, which a device that hangs may block.

        All probes run in the same thread. On the first launch of a thread, CuPy queries the free
        device memory while it holds the GIL, so a new thread could block this one as well.
        """
        requests, answers = _Requests(), _Answers()
        threading.Thread(target=_serve_probes, args=(probe, requests, answers), daemon=True).start()
        while not self._stopped.wait(self._interval_s):
            requests.put(True)
            error = wait_for_answer(answers, self._interval_s)
            if error is not None:
                if not self._stopped.is_set():
                    self._on_lost(error)
                break
        requests.put(False)


def wait_for_answer(answers: _Answers, interval_s: float) -> PoolingError | None:
    """Return the error of the probe in progress, or None if the device is healthy.

    The timeout counts intervals that were waited for, not clock time. Time in which the whole
    process was suspended therefore does not count.

    Args:
        answers: queue that the probe puts its error into.
        interval_s: seconds per interval; there are `TIMEOUT_INTERVALS` of them.
    """
    for _ in range(TIMEOUT_INTERVALS):
        with suppress(queue.Empty):
            return answers.get(timeout=interval_s)
    return lost_device(f"no answer for {TIMEOUT_INTERVALS * interval_s:g} s")


def _serve_probes(probe: Probe, requests: _Requests, answers: _Answers) -> None:
    while requests.get():
        answers.put(_error_of(probe))


def _error_of(probe: Probe) -> PoolingError | None:
    try:
        probe()
    except MemoryError:  # the device answers, but is full
        return None
    except UnavailableError as error:
        return error
    except Exception as error:
        return lost_device(str(error))
    return None
