"""Signs that delays of the generator, and not the server, determined the figures.

A lag matters if it changes a figure. Each percentile of the latency is therefore compared with the
same percentile of the times from sending to the reply.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pooling_loadtest.calls import NEVER, Calls, percentiles
from pooling_loadtest.generator import Summary
from pooling_loadtest.statistics import is_supported
from pooling_loadtest.texts import counted, short

_AT = (50.0, 90.0, 99.0)
_MAX_SHARE, _MAX_MS = 0.10, 0.5  # of a percentile that may be lag; both must be exceeded
_MAX_LATE, _MAX_LATE_S = 0.05, 0.05  # delay of the last call: share of the schedule, and seconds
_MAX_CPU = 0.95  # of one core: Python runs on no more


def distortions(calls: Calls, summaries: Sequence[Summary], is_open: bool) -> list[str]:
    """Return the reasons why the figures are not the server's alone, as sentences."""
    found = list(_late(calls)) if is_open else []
    delayed = sum(summary.delayed for summary in summaries)
    if is_open and not delayed:
        found += _slow(calls)
    if delayed:
        who = counted(delayed, "call", "calls")
        found.append(f"{who} waited because the maximum number was in flight.")
    unsent = int(np.count_nonzero(calls.sent_ns == NEVER))
    if unsent:
        verb = "was" if unsent == 1 else "were"
        found.append(f"{counted(unsent, 'call', 'calls')} that {verb} due {verb} not sent.")
    if not is_open:
        for summary in summaries:
            if summary.cpu > _MAX_CPU:
                share = f"{100 * summary.cpu:.0f} % of a core"
                found.append(
                    f"Generator process {summary.number} used {share}: it may have limited the "
                    "rate; use more processes."
                )
    return found


def _late(calls: Calls) -> Iterator[str]:
    """Yield a sentence if a percentile of the latency consists of lag to a large part."""
    is_answered = calls.is_ok & (calls.sent_ns != NEVER)
    lag_ns = calls.lag_ns[is_answered]
    latency_ms = percentiles(calls.latency_ns[is_answered], _AT) / 1e6
    without_ms = percentiles((calls.done_ns - calls.sent_ns)[is_answered], _AT) / 1e6
    for at, ms, least_ms in zip(_AT, latency_ms, without_ms, strict=True):
        if not is_supported(at, lag_ns.size):
            return
        if ms - least_ms > max(_MAX_MS, _MAX_SHARE * ms):
            late = 100 * float(np.mean(lag_ns > _MAX_MS * 1e6))
            yield (
                f"The generator sent calls late: p{at:g} of the latency is {short(ms)} ms, but "
                f"{short(least_ms)} ms without its lag; {short(late)} % of the calls were sent "
                f"over {_MAX_MS:g} ms late."
            )
            return


def _slow(calls: Calls) -> Iterator[str]:
    """Yield a sentence if sending took longer than planned."""
    planned_s, took_s = (
        float(column.max(initial=0)) / 1e9 for column in (calls.scheduled_ns, calls.sent_ns)
    )
    if took_s - planned_s > max(_MAX_LATE_S, _MAX_LATE * planned_s):
        yield (
            f"The generator was too slow for the schedule: it took {short(took_s)} s to send the "
            f"calls that were due within {short(planned_s)} s."
        )
