"""Columns of a load test, with one row per call.

=============== ======= ===========================================================================
column          type    content
=============== ======= ===========================================================================
scheduled_ns    int64   when the call was due, in nanoseconds from the common start
sent_ns         int64   when it was sent; -1 if the run ended before
done_ns         int64   when its reply or error arrived; -1 if neither did
status          uint8   gRPC status code (HTTP statuses are mapped to one); 255 without a reply
kind            uint8   index into `Run.kinds`
sent_bytes      int64   size of the request message
received_bytes  int64   size of the reply message; 0 for an error
queue_us        float32 server: time until a compute slot was free; NaN if it was not reported
compute_us      float32 server: time of the computation; NaN as above
total_us        float32 server: time from the request to the reply; NaN as above
verified        int8    0 not checked, 1 right, 2 wrong
process         uint8   number of the generator process
=============== ======= ===========================================================================

In the closed loop, `scheduled_ns` equals `sent_ns`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pooling_loadtest.errors import ResultsError

NEVER = -1  # in columns of times
MAX_NS = 10**17  # three years
TIMES = ("scheduled_ns", "sent_ns", "done_ns")
NO_STATUS = 255
NOT_CHECKED, RIGHT, WRONG = 0, 1, 2

COLUMNS: dict[str, Any] = {
    "scheduled_ns": np.int64,
    "sent_ns": np.int64,
    "done_ns": np.int64,
    "status": np.uint8,
    "kind": np.uint8,
    "sent_bytes": np.int64,
    "received_bytes": np.int64,
    "queue_us": np.float32,
    "compute_us": np.float32,
    "total_us": np.float32,
    "verified": np.int8,
    "process": np.uint8,
}
_EMPTY = {
    "scheduled_ns": NEVER,
    "sent_ns": NEVER,
    "done_ns": NEVER,
    "status": NO_STATUS,
} | dict.fromkeys(("queue_us", "compute_us", "total_us"), np.nan)


class Calls:
    """Columns with one row per call.

    Args:
        columns: arrays of equal length, by the names of `COLUMNS`; missing ones are filled.
    """

    scheduled_ns: NDArray[np.int64]
    sent_ns: NDArray[np.int64]
    done_ns: NDArray[np.int64]
    status: NDArray[np.uint8]
    kind: NDArray[np.uint8]
    sent_bytes: NDArray[np.int64]
    received_bytes: NDArray[np.int64]
    queue_us: NDArray[np.float32]
    compute_us: NDArray[np.float32]
    total_us: NDArray[np.float32]
    verified: NDArray[np.int8]
    process: NDArray[np.uint8]

    def __init__(self, columns: dict[str, NDArray[Any]]) -> None:
        size = len(columns["scheduled_ns"])
        for name, dtype in COLUMNS.items():
            column = columns.get(name)
            if column is None:
                column = np.full(size, _EMPTY.get(name, 0), dtype)
            if column.shape != (size,):
                raise ResultsError(f"column {name} has shape {column.shape}; must be ({size},)")
            setattr(self, name, column.astype(dtype, copy=False))

    @classmethod
    def empty(cls, size: int) -> Self:
        """Return columns for `size` calls, none of which happened."""
        calls = cls({name: np.zeros(size, dtype) for name, dtype in COLUMNS.items()})
        calls.clear(slice(None))
        return calls

    def clear(self, rows: slice | int) -> None:
        """Mark rows as calls that did not happen."""
        for name, value in _EMPTY.items():
            getattr(self, name)[rows] = value

    @classmethod
    def joined(cls, parts: Sequence[Calls]) -> Self:
        """Return the calls of several processes, in the order of their scheduled times."""
        order = np.argsort(np.concatenate([part.scheduled_ns for part in parts]), kind="stable")
        columns = {}
        for name in COLUMNS:
            columns[name] = np.concatenate([getattr(part, name) for part in parts])[order]
        return cls(columns)

    def __len__(self) -> int:
        return len(self.scheduled_ns)

    def __getitem__(self, rows: slice | NDArray[Any]) -> Calls:
        """Return some of the calls: a slice, a mask or an array of row numbers."""
        return Calls({name: column[rows] for name, column in self.columns().items()})

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the columns by name."""
        return {name: getattr(self, name) for name in COLUMNS}

    @property
    def is_done(self) -> NDArray[np.bool_]:
        """Mask of the calls with a reply or an error."""
        return np.asarray(self.done_ns != NEVER)

    @property
    def is_ok(self) -> NDArray[np.bool_]:
        """Mask of the calls with a reply."""
        return np.asarray(self.is_done & (self.status == 0))

    @property
    def latency_ns(self) -> NDArray[np.int64]:
        """Time from the scheduled moment to the reply or error of each call; -1 without one.

        The open loop counts from the scheduled moment, so a call that was sent late is late. In
        the closed loop, that moment is the one of sending.
        """
        return np.where(self.is_done, self.done_ns - self.scheduled_ns, NEVER)

    @property
    def lag_ns(self) -> NDArray[np.int64]:
        """Delay of each call in the generator: sent minus scheduled; -1 if it was not sent."""
        return np.where(self.sent_ns != NEVER, self.sent_ns - self.scheduled_ns, NEVER)


def percentiles(values: ArrayLike, at: ArrayLike) -> NDArray[np.float64]:
    """Return percentiles as NumPy defines them, by linear interpolation; NaN for no values.

    Args:
        values: the values, such as latencies.
        at: percentages from 0 to 100.
    """
    values, at = np.asarray(values), np.asarray(at, np.float64)
    if not values.size:
        return np.full(at.shape, np.nan)
    return np.asarray(np.percentile(values, at), np.float64)
