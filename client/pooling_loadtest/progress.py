"""The live line of a running load test, and the decision to stop when the server has died."""

from __future__ import annotations

import math
import sys
from typing import TextIO

from pooling_loadtest.generator import Progress
from pooling_loadtest.texts import counted


class Watch:
    """Shows the state of the generators, and stops a test whose server has died.

    Args:
        duration_s: planned duration.
        give_up_s: seconds without a reply, while calls fail with UNAVAILABLE, after which the
            test stops.
        stream: stream for the line, if it is a terminal.
    """

    def __init__(self, duration_s: float, give_up_s: float, stream: TextIO | None = None) -> None:
        self._duration_s, self._give_up_s = duration_s, give_up_s
        self._stream = sys.stderr if stream is None else stream
        self._shows = self._stream.isatty()
        self._last_ok = (0.0, 0)  # time and number of replies
        self._unavailable = 0
        self._previous = (0.0, 0)

    def __call__(self, now_s: float, states: list[Progress]) -> str | None:
        """Show the state; return the reason to stop, or None."""
        if now_s < self._previous[0] + 0.2:
            return None
        succeeded = sum(state.succeeded for state in states)
        unavailable = sum(state.unavailable for state in states)
        self._show(now_s, states)
        if succeeded > self._last_ok[1]:
            self._last_ok, self._unavailable = (now_s, succeeded), unavailable
        silent_s = now_s - self._last_ok[0]
        failed = unavailable - self._unavailable
        if failed > 0 and silent_s > self._give_up_s:
            return (
                f"the server became unavailable about {self._last_ok[0]:.1f} s after the start: "
                f"{counted(failed, 'call has', 'calls have')} failed since"
            )
        return None

    def end(self) -> None:
        """Clear the line."""
        if self._shows:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _show(self, now_s: float, states: list[Progress]) -> None:
        sent, done = (sum(getattr(state, name) for state in states) for name in ("sent", "done"))
        errors = done - sum(state.succeeded for state in states)
        past_s, past = self._previous
        self._previous = now_s, done
        if not self._shows:
            return
        rate = max(0, done - past) / max(1e-9, now_s - past_s)
        latencies = [state.p50_ms for state in states if not math.isnan(state.p50_ms)]
        p50 = f"p50 {max(latencies):.3g} ms" if latencies else "no reply yet"
        self._stream.write(
            f"\r\x1b[K{max(0.0, now_s):6.1f} / {self._duration_s:g} s   "
            f"{counted(done, 'call', 'calls')}   {rate:,.0f} calls/s   {p50}   "
            f"{sent - done:,} in flight   {counted(errors, 'error', 'errors')}"
        )
        self._stream.flush()
