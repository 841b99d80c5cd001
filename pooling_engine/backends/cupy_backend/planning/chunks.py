"""Calls cut along planes (channels last: items of the batch), and how a slab lies in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from pooling_engine.backends.cupy_backend.planning.launches import Launch
from pooling_engine.plans.plan import PoolPlan

MARK_BYTES = 4  # where a kernel may leave one: an int
ALIGNMENT = 256  # bytes, as of what a card allocates


class Step(NamedTuple):
    """A launch, and the names of the arrays that it takes; of one that is not there, nothing."""

    launch: Launch
    arrays: tuple[str, ...]


Steps = Callable[[PoolPlan], Sequence[Step]]  # of a slab, given its plan


class Part(NamedTuple):
    """What a slab has of an array.

    Attributes:
        name: of the array.
        place: where it begins in the memory of a lane, in bytes.
        nbytes: its size.
    """

    name: str
    place: int
    nbytes: int


class Slab(NamedTuple):
    """Some planes of a call in the memory of a lane.

    Attributes:
        planes: how many.
        inputs: what is copied into the lane's memory on the host.
        outputs: what is copied out of it.
        pinned_inputs: what is uploaded from where it is.
        pinned_outputs: what is downloaded to where it belongs.
        sent: the bytes of the lane that are uploaded: their begin and their end.
        back: those that are downloaded.
        mark: where kernels may leave one, an int; None where none does.
        launches: what is launched, and where the arrays begin that it takes; None: a null pointer.
    """

    planes: int
    inputs: tuple[Part, ...]
    outputs: tuple[Part, ...]
    pinned_inputs: tuple[Part, ...]
    pinned_outputs: tuple[Part, ...]
    sent: tuple[int, int]
    back: tuple[int, int]
    mark: int | None
    launches: tuple[tuple[Launch, tuple[int | None, ...]], ...]


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
    """How the arrays of a slab lie in the memory of a lane.

    What is sent, a mark of four bytes, what comes back, side by side: one copy is enough in either
    direction. Before and after them, what is pinned, in copies of its own; last, what is on the
    card only.

    Args:
        plan: of the call; it has planes.
        inputs: the arrays that are sent: their bytes, by name.
        outputs: those that come back.
        scratch: the element types of those that kernels leave for one another, by name: they have
            the shape of the forward output.
        pinned: the names of the arrays that the card reaches where they are.

    Attributes:
        plan: of the call.
        plane_bytes: what all arrays have for one plane.
    """

    def __init__(
        self,
        plan: PoolPlan,
        inputs: dict[str, int],
        outputs: dict[str, int],
        scratch: Mapping[str, np.dtype[Any]],
        pinned: Collection[str],
    ) -> None:
        self.plan = plan
        self._pinned_inputs = tuple(name for name in inputs if name in pinned)
        self._inputs = tuple(name for name in inputs if name not in pinned)
        self._outputs = tuple(name for name in outputs if name not in pinned)
        self._pinned_outputs = tuple(name for name in outputs if name in pinned)
        nbytes = inputs | outputs
        sizes = {name: nbytes[name] // plan.outer for name in (*self._pinned_inputs, *self._inputs)}
        sizes["doubt"] = 0  # the mark, one for all planes
        for name in (*self._outputs, *self._pinned_outputs):
            sizes[name] = nbytes[name] // plan.outer
        count = math.prod(plan.output_block_shape[1:])
        sizes |= {name: dtype.itemsize * count for name, dtype in scratch.items()}
        self._sizes = sizes
        self.plane_bytes = sum(sizes.values())

    def planes_in(self, nbytes: int) -> int:
        """How many planes a lane of so many bytes takes; 0, if not even one."""
        return max(0, nbytes - ALIGNMENT * len(self._sizes)) // self.plane_bytes

    def slab(self, planes: int, steps: Steps) -> Slab:
        """A slab of so many planes, and what is launched on it; "doubt" is the mark."""
        parts, end = {}, 0
        for name, size in self._sizes.items():
            parts[name] = Part(name, end, size * planes)
            end += -(-max(size * planes, MARK_BYTES) // ALIGNMENT) * ALIGNMENT
        todo = steps(slab_of(self.plan, planes))
        has_mark = any("doubt" in step.arrays for step in todo)
        places = {name: part.place for name, part in parts.items()}
        mark = places["doubt"]
        sent = places[self._inputs[0]] if self._inputs else mark
        back = mark if has_mark else mark + ALIGNMENT
        ends = [places[name] + parts[name].nbytes for name in self._outputs]
        return Slab(
            planes,
            inputs=tuple(parts[name] for name in self._inputs),
            outputs=tuple(parts[name] for name in self._outputs),
            pinned_inputs=tuple(parts[name] for name in self._pinned_inputs),
            pinned_outputs=tuple(parts[name] for name in self._pinned_outputs),
            sent=(sent, mark + MARK_BYTES * has_mark),
            back=(back, max([mark + MARK_BYTES * has_mark, *ends])),
            mark=mark if has_mark else None,
            launches=tuple(
                (launch, tuple(places.get(name) for name in names)) for launch, names in todo
            ),
        )
