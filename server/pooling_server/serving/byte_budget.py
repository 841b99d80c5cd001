"""Budget of the bytes that calls in flight occupy, shared fairly between connections."""

from __future__ import annotations

import threading

from pooling_engine import OverloadedError, TensorTooLargeError

RETRY_AFTER_S = 0.1


class ByteBudget:
    """Bytes of the requests, results and replies of calls in flight.

    With a reservation, the bytes of a connection may not exceed those that were free before it.
    The calls of one connection alone therefore use up to half of the budget, those of two a third
    each, and a further connection always finds free bytes (Choudhury and Hahne, "Dynamic queue
    length thresholds", 1998). A connection without reservations may reserve all free bytes.

    Args:
        limit_bytes: the budget.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._used = 0
        self._by_peer: dict[str, int] = {}
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """Bytes reserved at present."""
        return self._used

    def reserve(self, peer: str, nbytes: int) -> None:
        """Reserve bytes for a call of a connection.

        Raises:
            TensorTooLargeError: the call alone exceeds the budget.
            OverloadedError: too many bytes are in flight.
        """
        with self._lock:
            own = self._by_peer.get(peer, 0)
            if own + nbytes <= self._limit - self._used:
                self._used += nbytes
                self._by_peer[peer] = own + nbytes
                return
        facts = {
            "limit": "max_in_flight_bytes",
            "value": str(self._limit),
            "option": "--max-in-flight-bytes",
        }
        if nbytes > self._limit:
            raise TensorTooLargeError(
                f"the call takes {nbytes} bytes; this server's limit is {self._limit} "
                "(--max-in-flight-bytes)",
                facts=facts,
            )
        raise OverloadedError(
            f"the call takes {nbytes} bytes, while {own} bytes of this connection and "
            f"{self._used} bytes in all are in flight; this server's limit is {self._limit} "
            "(--max-in-flight-bytes)",
            facts=facts | {"retry_after_s": str(RETRY_AFTER_S)},
        )

    def release(self, peer: str, nbytes: int) -> None:
        """Release reserved bytes."""
        with self._lock:
            self._used -= nbytes
            left = self._by_peer[peer] - nbytes
            if left:
                self._by_peer[peer] = left
            else:
                del self._by_peer[peer]
