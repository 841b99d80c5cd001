"""Calls cut into chunks of planes, and the layout of a chunk in a staging buffer.

Channels last, a plane is an item of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from pooling_engine.backends.cupy_backend.planning.launches import Launch
from pooling_engine.plans.plan import PoolPlan

FLAG_BYTES = 4  # int32 that a kernel sets when it finds an error
ALIGNMENT = 256  # bytes, as in CUDA's allocations


class LaunchStep(NamedTuple):
    """A launch and the names of its arrays; an unknown name is a null pointer."""

    launch: Launch
    arrays: tuple[str, ...]


Steps = Callable[[PoolPlan], Sequence[LaunchStep]]  # from the plan of a chunk


class ArrayPart(NamedTuple):
    """The part of an array that belongs to a chunk.

    Attributes:
        name: name of the array.
        offset: first byte in the staging buffer.
        nbytes: size in bytes.
    """

    name: str
    offset: int
    nbytes: int


class Chunk(NamedTuple):
    """Some planes of a call in a staging buffer.

    Attributes:
        planes: number of planes.
        inputs: parts that the host copies into the buffer.
        outputs: parts that the host copies out of the buffer.
        pinned_inputs: parts that are uploaded from the caller's pinned memory.
        pinned_outputs: parts that are downloaded into the caller's pinned memory.
        upload: begin and end of the bytes of the buffer that are uploaded.
        download: begin and end of the bytes of the buffer that are downloaded.
        flag: offset of the error flag, or None if no kernel sets one.
        launches: launches with the offsets of their arrays; None is a null pointer.
    """

    planes: int
    inputs: tuple[ArrayPart, ...]
    outputs: tuple[ArrayPart, ...]
    pinned_inputs: tuple[ArrayPart, ...]
    pinned_outputs: tuple[ArrayPart, ...]
    upload: tuple[int, int]
    download: tuple[int, int]
    flag: int | None
    launches: tuple[tuple[Launch, tuple[int | None, ...]], ...]


@lru_cache(maxsize=512)
def chunk_plan(plan: PoolPlan, planes: int) -> PoolPlan:
    """Return the plan of a number of planes of a call."""
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


class ChunkLayout:
    """Layout of a chunk's arrays in a staging buffer.

    The order is: pinned inputs, inputs, flag, outputs, pinned outputs, scratch. Inputs, flag and
    outputs are adjacent, so that one copy in each direction is enough. Pinned arrays have a copy
    each. Scratch arrays are never copied.

    Args:
        plan: plan of the call; it has at least one plane.
        inputs: name and size in bytes of the input arrays.
        outputs: name and size in bytes of the result arrays.
        scratch: name and dtype of the device-only arrays, which have the shape of the forward
            output.
        pinned: names of the arrays in pinned memory.

    Attributes:
        plan: plan of the call.
        plane_bytes: bytes of all arrays per plane.
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
        sizes["flag"] = 0  # one for all planes
        for name in (*self._outputs, *self._pinned_outputs):
            sizes[name] = nbytes[name] // plan.outer
        count = math.prod(plan.output_block_shape[1:])
        sizes |= {name: dtype.itemsize * count for name, dtype in scratch.items()}
        self._sizes = sizes
        self.plane_bytes = sum(sizes.values())

    def planes_within(self, nbytes: int) -> int:
        """Return how many planes fit in a staging buffer; 0 if not even one does."""
        return max(0, nbytes - ALIGNMENT * len(self._sizes)) // self.plane_bytes

    def chunk(self, planes: int, steps: Steps) -> Chunk:
        """Return a chunk of a number of planes with its launches."""
        parts, end = {}, 0
        for name, size in self._sizes.items():
            parts[name] = ArrayPart(name, end, size * planes)
            end += -(-max(size * planes, FLAG_BYTES) // ALIGNMENT) * ALIGNMENT
        launch_steps = steps(chunk_plan(self.plan, planes))
        has_flag = any("flag" in step.arrays for step in launch_steps)
        offsets = {name: part.offset for name, part in parts.items()}
        flag = offsets["flag"]
        first_input = offsets[self._inputs[0]] if self._inputs else flag
        first_output = flag if has_flag else flag + ALIGNMENT
        ends = [offsets[name] + parts[name].nbytes for name in self._outputs]
        return Chunk(
            planes,
            inputs=tuple(parts[name] for name in self._inputs),
            outputs=tuple(parts[name] for name in self._outputs),
            pinned_inputs=tuple(parts[name] for name in self._pinned_inputs),
            pinned_outputs=tuple(parts[name] for name in self._pinned_outputs),
            upload=(first_input, flag + FLAG_BYTES * has_flag),
            download=(first_output, max([flag + FLAG_BYTES * has_flag, *ends])),
            flag=flag if has_flag else None,
            launches=tuple(
                (launch, tuple(offsets.get(name) for name in names))
                for launch, names in launch_steps
            ),
        )
