"""Calls cut along planes (channels last: items of the batch), and how a slab lies in memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from pooling_engine.backends.cupy_kernels.card import HostArray
from pooling_engine.plan import PoolPlan

MARK_BYTES = 4  # where a kernel may leave one: an int
ALIGNMENT = 256  # bytes, as of what a card allocates


@lru_cache(maxsize=512)
def slab_of(plan: PoolPlan, planes: int) -> PoolPlan:
    """The plan of so many planes (channels last: items) of a call."""
    if planes == plan.outer:
        return plan
    of_batch = plan.outer == plan.input_shape[0]
    leading, rest = ((planes,), 1) if of_batch else ((1, planes), 2)
    return replace(
        plan,
        outer=planes,
        input_shape=(*leading, *plan.input_shape[rest:]),
        output_shape=(*leading, *plan.output_shape[rest:]),
    )


class Layout:
    """A call on arrays of the host, and where those of a slab begin in the memory of a lane.

    First what is sent, then a mark of four bytes, then what comes back: one copy of bytes side by
    side is enough in either direction. Last what is on the card only.

    Args:
        plan: of the call; it has planes.
        inputs: the arrays that are sent, by name, C-contiguous.
        outputs: those that come back.
        scratch: the element types of those that kernels leave for one another, by name: they have
            the shape of the forward output.

    Attributes:
        plan: of the call.
        inputs: the bytes of each array that is sent, a row for each plane.
        outputs: the same of those that come back.
        plane_bytes: what all of them and the scratch have for one plane.
    """

    def __init__(
        self,
        plan: PoolPlan,
        inputs: Mapping[str, HostArray],
        outputs: Mapping[str, HostArray],
        scratch: Mapping[str, np.dtype[Any]],
    ) -> None:
        self.plan = plan
        self.inputs, self.outputs = (
            {name: array.reshape(plan.outer, -1).view(np.uint8) for name, array in arrays.items()}
            for arrays in (inputs, outputs)
        )
        self._sizes = {name: rows.shape[1] for name, rows in self.inputs.items()}
        self._sizes |= {"doubt": 0}  # the mark, one for all planes
        self._sizes |= {name: rows.shape[1] for name, rows in self.outputs.items()}
        count = math.prod(plan.output_block_shape[1:])
        self._scratch = {name: dtype.itemsize * count for name, dtype in scratch.items()}
        self._sizes |= self._scratch
        self.plane_bytes = sum(self._sizes.values())

    def planes_in(self, nbytes: int) -> int:
        """How many planes a lane of so many bytes takes; 0, if not even one."""
        return max(0, nbytes - ALIGNMENT * len(self._sizes)) // self.plane_bytes

    def places_of(self, planes: int) -> tuple[dict[str, int], int]:
        """Where each array of a slab begins, the mark as "doubt", and the end of what comes back.

        All in bytes.
        """
        places, end, back = {}, 0, 0
        for name, nbytes in self._sizes.items():
            places[name] = end
            end += -(-max(nbytes * planes, MARK_BYTES) // ALIGNMENT) * ALIGNMENT
            if name not in self._scratch:
                back = end
        return places, back
