"""Interface of a sender."""

from __future__ import annotations

from typing import Protocol

Metadata = tuple[tuple[str, str], ...]


class Sender(Protocol):
    """Sends the calls of one kind; its threads report to a recorder.

    Attributes:
        limit: maximum number of its calls that can be in flight; 0 for no limit.
        variants: number of payloads.
    """

    limit: int
    variants: int

    def send(self, row: int, variant: int) -> None:
        """Start a call, without waiting for its reply.

        Args:
            row: number of the call in the columns.
            variant: number of its payload.
        """

    def close(self) -> None:
        """Cancel the calls in flight."""
