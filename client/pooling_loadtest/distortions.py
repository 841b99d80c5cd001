"""Signs that the generator, and not the server, decided what was measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pooling_loadtest.calls import NEVER, Calls, percentiles
from pooling_loadtest.generator import Summary
from pooling_loadtest.texts import short

_MAX_LAG = 0.05  # p99 of the lag, relative to the median latency
_MAX_CPU = 0.95  # of one core: Python runs on no more


def distortions(calls: Calls, summaries: Sequence[Summary], is_open: bool) -> list[str]:
    """Return the reasons why the latencies are not the server's alone, as sentences."""
    found = []
    is_sent = calls.sent_ns != NEVER
    if is_open and is_sent.any():
        lag_ms = float(percentiles(calls.lag_ns[is_sent], [99])[0]) / 1e6
        done = calls.latency_ns[calls.is_done]
        p50_ms = float(np.median(done)) / 1e6 if done.size else 0.0
        if lag_ms > _MAX_LAG * p50_ms:
            found.append(
                f"The generator sent calls late: p99 of its lag is {short(lag_ms)} ms, more than "
                f"{_MAX_LAG:.0%} of the median latency, {short(p50_ms)} ms."
            )
    delayed = sum(summary.delayed for summary in summaries)
    if delayed:
        found.append(f"{delayed:,} calls waited because the maximum number was in flight.")
    unsent = len(calls) - int(np.count_nonzero(is_sent))
    if unsent:
        found.append(f"{unsent:,} calls that were due were not sent.")
    if not is_open:
        for number, summary in enumerate(summaries):
            if summary.cpu > _MAX_CPU:
                found.append(
                    f"Generator process {number} used {summary.cpu:.0%} of a core: it may have "
                    "limited the rate; use more processes."
                )
    return found
