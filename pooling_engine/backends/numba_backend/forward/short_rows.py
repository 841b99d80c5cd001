"""Parts that the kernels of small planes with short rows share."""

from __future__ import annotations

from pooling_engine.backends.numba_backend.language.jit import routine, section
from pooling_engine.backends.numba_backend.language.pointers import Pointer, get, put


@section
def is_near_edge(plane: int, size: int, margin: int, total: int) -> bool:
    """Return whether vectors of a plane may reach beyond the tensor.

    Args:
        plane: number of the plane.
        size: elements of a plane.
        margin: elements before and after a plane that its vectors may reach.
        total: elements of the tensor.
    """
    return plane * size < margin or (plane + 1) * size + margin > total


@routine
def copy_elements(source: Pointer, target: Pointer, count: int) -> None:
    """Copy elements to memory that does not overlap theirs."""
    for i in range(count):
        put(target, i, get(source, i))
