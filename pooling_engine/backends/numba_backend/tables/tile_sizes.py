"""Most bytes of a tile, for each family of kernels; measured with 32 KiB of L1, 512 KiB of L2."""

from __future__ import annotations

WINDOWS = 32 << 10  # of the input, forward and for averages backward; fastest of 8 to 64 KiB
INDEXED = 256 << 10  # of the input, for extremes with indices, channels last
WIDE = 2 << 20  # of the input, for extremes of wide windows; they overlap with the next tile
PADDED = 8 << 10  # of rows that are padded together, for extremes of large windows; fits in L1
SELECTED = 256 << 10  # of their extremes along the rows; fits in L2
SCATTERED = 128 << 10  # of the gradient; its sums in float64 fill half of L2
STACKED = 16 << 10  # of the gradients of several small planes; their sums fit in L1
ADJACENT = 16 << 10  # of the gradient; its intermediate results share L1
STREAMED = 32 << 20  # of a whole gradient; a larger one is written past the cache
