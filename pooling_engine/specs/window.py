"""Windows along one spatial axis."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """Windows along one spatial axis; all sizes in elements.

    Attributes:
        kernel: number of taps (positions of a window), at least 1.
        stride: step from window to window, at least 1.
        dilation: step from tap to tap, at least 1.
        padding_before: positions added before the first element, less than `extent`.
        padding_after: positions added after the last element, less than `extent`.
    """

    kernel: int
    stride: int
    dilation: int = 1
    padding_before: int = 0
    padding_after: int = 0

    @property
    def extent(self) -> int:
        """Number of positions from the first to the last tap: ``(kernel - 1) * dilation + 1``."""
        return (self.kernel - 1) * self.dilation + 1
