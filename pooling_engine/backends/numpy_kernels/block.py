"""How a call is cut into blocks: runs of planes, or bands of one plane, that fit in cache."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from pooling_engine.geometry import Axis, Tap, taps_between
from pooling_engine.plan import PoolPlan
from pooling_engine.spec import Mode

BLOCK_BYTES = 1 << 20  # of float32 input; measured best of 256 KiB to 4 MiB with 1 MiB of L2


class Block(NamedTuple):
    """A run of planes and, of their first spatial axis, a band.

    Attributes:
        outer: the run of planes.
        outputs: the outputs of the band along the first spatial axis.
        inputs: the elements of the band along the first spatial axis.
        taps: for each spatial axis, the taps that join the two.
    """

    outer: slice
    outputs: tuple[int, int]
    inputs: tuple[int, int]
    taps: tuple[Sequence[Tap], ...]

    @property
    def output_part(self) -> tuple[slice, slice]:
        """Where the block's outputs stand in an array of the output's block shape."""
        return self.outer, slice(*self.outputs)

    @property
    def input_part(self) -> tuple[slice, slice]:
        """Where the block's inputs stand in an array of the input's block shape."""
        return self.outer, slice(*self.inputs)


@lru_cache(maxsize=256)
def forward_blocks(plan: PoolPlan) -> tuple[Block, ...]:
    """Blocks whose outputs, together, are all outputs; the inputs of bands may overlap."""
    first = plan.axes[0]
    planes, rows = _planes_and_rows(plan, first.outputs)
    bands = [
        ((start, stop), first.inputs_of(start, stop)) for start, stop in _runs(first.outputs, rows)
    ]
    return _blocks(plan, planes, bands)


@lru_cache(maxsize=256)
def backward_blocks(plan: PoolPlan) -> tuple[Block, ...]:
    """Blocks whose inputs, together, are all inputs; the outputs of bands may overlap.

    Every input cell is in exactly one block, with all outputs that reach it. A norm's
    gradient needs the whole windows of those outputs, so its planes are not cut in bands.
    """
    first = plan.axes[0]
    planes, rows = _planes_and_rows(plan, first.size)
    if plan.mode is Mode.LP:
        rows = first.size
    bands = [
        (first.outputs_of(start, stop), (start, stop)) for start, stop in _runs(first.size, rows)
    ]
    return _blocks(plan, planes, bands)


def _planes_and_rows(plan: PoolPlan, rows: int) -> tuple[int, int]:
    """How many planes a block holds, and how many of `rows` rows."""
    plane_bytes = max(1, plan.input_bytes // max(1, plan.outer) * 4 // plan.dtype.itemsize)
    if plane_bytes <= BLOCK_BYTES:
        return BLOCK_BYTES // plane_bytes, rows
    bands = -(-plane_bytes // BLOCK_BYTES)
    return 1, max(1, -(-rows // bands))


def _blocks(
    plan: PoolPlan, planes: int, bands: list[tuple[tuple[int, int], tuple[int, int]]]
) -> tuple[Block, ...]:
    rest = [_taps(plan, axis, (0, axis.outputs), (0, axis.size)) for axis in plan.axes[1:]]
    taps = [(_taps(plan, plan.axes[0], *band), *rest) for band in bands]
    return tuple(
        Block(slice(start, stop), outputs, inputs, band_taps)
        for start, stop in _runs(plan.outer, planes)
        for (outputs, inputs), band_taps in zip(bands, taps, strict=True)
    )


def _taps(
    plan: PoolPlan, axis: Axis, outputs: tuple[int, int], inputs: tuple[int, int]
) -> tuple[Tap, ...]:
    """The taps of one axis: in order for sums, those that reach most outputs first for extremes."""
    if outputs[0] == outputs[1]:
        return ()
    taps = taps_between(axis, outputs, inputs)
    if plan.selects:
        return tuple(sorted(taps, key=lambda tap: tap.outputs.start - tap.outputs.stop))
    return taps


def _runs(total: int, length: int) -> list[tuple[int, int]]:
    return [(start, min(start + length, total)) for start in range(0, total, length)]
