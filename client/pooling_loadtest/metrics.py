"""Prometheus metrics of the server, read once a second during the test."""

from __future__ import annotations

import math
import threading
import time
import urllib.error
import urllib.request
from types import TracebackType
from typing import Any, Self

from pooling_loadtest.errors import MisuseError, TargetError

_EVERY_S, _TIMEOUT_S = 1.0, 2.0


class Scraper:
    """Reads metrics in a thread while the context lasts.

    Args:
        url: address of the metrics; None for none.

    Raises:
        MisuseError: the address is no web address.
        TargetError: there are no metrics.
    """

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._samples: list[tuple[int, dict[str, float]]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._scrape, daemon=True)
        if url is not None and not url.startswith(("http://", "https://")):
            raise MisuseError(f"metrics-url is {url!r}; it must begin with http:// or https://")

    def samples(self, start_ns: int) -> list[dict[str, Any]]:
        """Return the samples with their times in seconds from the start of the test."""
        return [
            {"at_s": round((at - start_ns) / 1e9, 3), "samples": samples}
            for at, samples in self._samples
        ]

    def __enter__(self) -> Self:
        if self._url is not None:
            try:
                self._read()
            except (OSError, ValueError) as error:
                text = f"cannot read metrics at {self._url}: {getattr(error, 'reason', error)}"
                raise TargetError(text) from None
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._url is not None:
            self._thread.join()

    def _scrape(self) -> None:
        while not self._over.wait(_EVERY_S):
            try:
                self._read()
            except (OSError, ValueError):
                continue  # the server may be restarting

    def _read(self) -> None:
        assert self._url is not None
        with urllib.request.urlopen(self._url, timeout=_TIMEOUT_S) as reply:
            text = reply.read().decode()
        self._samples.append((time.monotonic_ns(), parse_metrics(text)))


def parse_metrics(text: str) -> dict[str, float]:
    """Return the finite samples in the text format of Prometheus, by name and labels."""
    samples = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            end = line.rfind("}") + 1 or line.find(" ")
            value = float(line[end:].split()[0])
            if math.isfinite(value):
                samples[line[:end]] = value
    return samples
