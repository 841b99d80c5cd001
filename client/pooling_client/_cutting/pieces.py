"""Cuts a call into pieces that fit a message: slabs of whole planes, or bands of one plane.

Every piece is a call of its own on a box of the tensor, and together they give the bits of the one
call. A forward band carries the rows that its windows reach. A backward band carries the rows of
the output's gradient that reach its own, so that each row of the input's gradient is computed whole
in one piece.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pooling_client._cutting.bands import Range, band_spec, even_runs, output_runs, runs
from pooling_engine import Layout, PoolPlan, PoolSpec
from pooling_engine.plans.geometry import Axis, SlidingAxis

Box = tuple[slice, ...]
ALL = slice(None)

LARGEST_BAND_BYTES = (
    32 << 20
)  # of a band that is made larger, lest it repeat more rows than it adds


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a call; boxes are in the coordinates of the whole tensors.

    Attributes:
        spec: what to compute on the piece.
        inputs: what it covers of the input.
        outputs: what it covers of the output, the indices and the output's gradient.
        computed: backward: what it computes whole of the input's gradient, within `inputs`.
        part: backward: the same, within the piece's own result.
    """

    spec: PoolSpec
    inputs: Box
    outputs: Box
    computed: Box
    part: Box


@dataclass(frozen=True, slots=True)
class Costs:
    """What a row of one plane adds to the messages, along the first spatial axis; in bytes.

    Attributes:
        input_sent: each row of the input, in the request.
        output_sent: each row of the output's gradient and of indices, in the request.
        received: each row of the output, or backward of the input's gradient, in the reply.
    """

    input_sent: int
    output_sent: int
    received: int


def forward_costs(plan: PoolPlan, index_bytes: int) -> Costs:
    """The costs of a forward call with indices of so many bytes each, or 0 for none."""
    input_row, output_row = _row_sizes(plan)
    itemsize = plan.output_dtype.itemsize + index_bytes
    return Costs(input_row * plan.dtype.itemsize, 0, output_row * itemsize)


def backward_costs(plan: PoolPlan, index_bytes: int, has_input: bool) -> Costs:
    """The costs of a backward call, with indices of so many bytes each, or 0 for none."""
    input_row, output_row = _row_sizes(plan)
    itemsize = plan.dtype.itemsize
    sent = input_row * itemsize if has_input else 0
    return Costs(sent, output_row * (itemsize + index_bytes), input_row * itemsize)


def forward_pieces(
    spec: PoolSpec,
    plan: PoolPlan,
    costs: Costs,
    max_bytes: int,
    band_bytes: int = LARGEST_BAND_BYTES,
) -> Iterator[Piece]:
    """The pieces of a forward call, in order.

    Args:
        max_bytes: how large the tensors of a request or a reply should be. A piece is larger where
            nothing smaller can be pooled alone.
        band_bytes: how large those of a band may be that would repeat more rows than it adds.
    """
    cut = _Cut(spec, plan)

    def size(rows: int, outputs: int) -> int:
        return max(rows * costs.input_sent, outputs * costs.received)

    most = max_bytes // size(plan.sizes[0], cut.outputs)
    if cut.is_whole(most):
        yield from cut.slabs(most)
        return
    axis = cut.axis
    repeated = axis.window.extent - axis.window.stride if isinstance(axis, SlidingAxis) else 0

    def fits(start: int, stop: int) -> bool:
        first, last = axis.inputs_of(start, stop)
        nbytes = cut.unit * size(last - first, stop - start)
        is_mostly_repeated = (stop - start) * cut.stride < repeated
        return nbytes <= (band_bytes if is_mostly_repeated else max_bytes)

    bands = list(output_runs(axis, fits))
    for place in cut.places():
        for outputs in bands:
            yield cut.band(place, outputs, axis.inputs_of(*outputs))


def backward_pieces(
    spec: PoolSpec,
    plan: PoolPlan,
    costs: Costs,
    max_bytes: int,
    band_bytes: int = LARGEST_BAND_BYTES,
) -> Iterator[Piece]:
    """The pieces of a backward call, in order; rows that no window reaches are in none.

    Args:
        max_bytes, band_bytes: as for `forward_pieces`.
    """
    cut = _Cut(spec, plan)

    def size(rows: int, outputs: int) -> int:
        return max(rows * costs.input_sent + outputs * costs.output_sent, rows * costs.received)

    most = max_bytes // size(plan.sizes[0], cut.outputs)
    if cut.is_whole(most):
        yield from cut.slabs(most)
        return
    axis = cut.axis
    repeated, step = 0, 1
    if isinstance(axis, SlidingAxis):
        repeated = 2 * (axis.window.extent - 1)
    else:  # only at the end of a period does no window reach across
        step = axis.size // math.gcd(axis.size, axis.outputs)

    def fits(start: int, stop: int) -> bool:
        outputs = axis.outputs_of(start, stop)
        first, last = axis.inputs_of(*outputs)
        nbytes = cut.unit * size(last - first, outputs[1] - outputs[0])
        return nbytes <= (band_bytes if stop - start < repeated else max_bytes)

    bands = list(runs(axis.size, step, fits))
    for place in cut.places():
        for rows in bands:
            outputs = axis.outputs_of(*rows)
            if outputs[0] == outputs[1]:
                continue
            first, last = axis.inputs_of(*outputs)
            kept = max(first, rows[0]), min(last, rows[1])
            if kept[0] < kept[1]:
                yield cut.band(place, outputs, (first, last), kept)


def has_unreached_rows(plan: PoolPlan) -> bool:
    """Whether the input may have rows that no window reaches, whose gradient is zero."""
    axis = plan.axes[0]
    return isinstance(axis, SlidingAxis) and (
        axis.window.stride > axis.window.extent or axis.inputs_of(0, axis.outputs)[1] < axis.size
    )


class _Cut:
    """How the boxes of one call lie in its tensors.

    Attributes:
        axis: the first spatial axis.
        outputs: its size in the output.
        stride: the rows of the input that one more output adds.
        unit: the planes that a band holds: one, or all channels where these are last.
    """

    def __init__(self, spec: PoolSpec, plan: PoolPlan) -> None:
        self._spec = spec
        self._is_last = spec.layout is Layout.CHANNELS_LAST
        shape = plan.input_shape
        self._samples, self._channels = shape[0], shape[-1 if self._is_last else 1]
        self._inner = (ALL,) * (len(plan.sizes) - 1)
        self._plan = plan
        self.axis: Axis = plan.axes[0]
        self.outputs = self.axis.outputs
        self.stride = self.axis.window.stride if isinstance(self.axis, SlidingAxis) else 0
        self.unit = self._channels if self._is_last else 1

    def is_whole(self, most: int) -> bool:
        """Whether pieces of so many planes are slabs; with one global window they always are."""
        return most >= self.unit or self._plan.is_global

    def slabs(self, most: int) -> Iterator[Piece]:
        """Pieces of at most so many whole planes; at least one, or all channels where last."""
        if most >= self._channels or self._is_last:
            places = (
                (slice(*run), ALL)
                for run in even_runs(self._samples, max(1, most // self._channels))
            )
        else:
            parts = even_runs(self._channels, max(1, most))
            places = ((slice(n, n + 1), slice(*run)) for n in range(self._samples) for run in parts)
        for place in places:
            box = self._box(place, ALL)
            yield Piece(self._spec, box, box, box, (ALL,) * len(box))

    def places(self) -> Iterator[tuple[slice, slice]]:
        """The planes of each stack of bands."""
        for n in range(self._samples):
            if self._is_last:
                yield slice(n, n + 1), ALL
            else:
                for c in range(self._channels):
                    yield slice(n, n + 1), slice(c, c + 1)

    def band(
        self, place: tuple[slice, slice], outputs: Range, inputs: Range, kept: Range | None = None
    ) -> Piece:
        """The piece of a range of outputs and the range of inputs that these reach."""
        first, last = inputs if kept is None else kept
        return Piece(
            band_spec(self._spec, self._plan, outputs, inputs),
            self._box(place, slice(*inputs)),
            self._box(place, slice(*outputs)),
            self._box(place, slice(first, last)),
            self._box((ALL, ALL), slice(first - inputs[0], last - inputs[0])),
        )

    def _box(self, place: tuple[slice, slice], rows: slice) -> Box:
        n, c = place
        spatial = (rows, *self._inner)
        return (n, *spatial, c) if self._is_last else (n, c, *spatial)


def _row_sizes(plan: PoolPlan) -> tuple[int, int]:
    """The elements of one row along the first spatial axis, of the input and of the output."""
    inner_outputs = () if plan.is_global else plan.axes[1:]
    return math.prod(plan.sizes[1:]), math.prod(axis.outputs for axis in inner_outputs)
