"""Cuts a call into pieces that fit a message: slabs of whole planes, or bands of one plane.

Every piece is a call of its own on a box of the tensor, and together they give the bits of the one
call. A forward band carries the rows that its windows reach. A backward band carries the rows of
the output's gradient that reach its own, so that each row of the input's gradient is computed whole
in one piece.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from pooling_engine import Layout, PoolPlan, PoolSpec
from pooling_engine.geometry import MAX_TAPS_PER_AXIS, AdaptiveAxis, Axis, SlidingAxis

Box = tuple[slice, ...]
Range = tuple[int, int]
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

    bands = list(_output_runs(axis, fits))
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

    bands = list(_runs(axis.size, step, fits))
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
                (slice(*run), ALL) for run in _even(self._samples, max(1, most // self._channels))
            )
        else:
            runs = _even(self._channels, max(1, most))
            places = ((slice(n, n + 1), slice(*run)) for n in range(self._samples) for run in runs)
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
            _band_spec(self._spec, self._plan, outputs, inputs),
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


def _even(count: int, most: int) -> list[Range]:
    """Runs of at most `most` that are as even as can be."""
    parts = -(-count // most)
    return [(count * part // parts, count * (part + 1) // parts) for part in range(parts)]


def _runs(count: int, step: int, fits: Callable[[int, int], bool]) -> Iterator[Range]:
    """Runs of as many whole steps as fit, and at least one."""
    start = 0
    while start < count:
        later = range(start + 2 * step, count + 1, step)
        more = bisect_left(later, True, key=lambda stop: not fits(start, stop))
        yield start, start + (1 + more) * step
        start += (1 + more) * step


def _output_runs(axis: Axis, fits: Callable[[int, int], bool]) -> Iterator[Range]:
    """Runs of as many outputs as fit and can be asked for in one spec, and at least one."""
    if isinstance(axis, SlidingAxis):
        yield from _runs(axis.outputs, 1, fits)
        return
    period = axis.outputs // math.gcd(axis.size, axis.outputs)
    start = 0
    while start < axis.outputs:
        _, stop = next(_runs(axis.outputs - start, 1, lambda a, b: fits(start + a, start + b)))  # noqa: B023
        halved = [stop >> halvings for halvings in range(stop.bit_length())]
        outputs = next(
            outputs
            for outputs in (stop - stop % period, *halved)
            if outputs and _is_alike(axis, start, start + outputs)
        )
        yield start, start + outputs
        start += outputs


def _is_alike(axis: AdaptiveAxis, start: int, stop: int) -> bool:
    """Whether outputs [start, stop) have the windows of so many adaptive outputs of their rows."""
    first, last = axis.inputs_of(start, stop)
    size, outputs = last - first, stop - start
    common = math.gcd(size, outputs)
    if size % outputs and (size + outputs) // common > MAX_TAPS_PER_AXIS:
        return False
    here, there = np.arange(outputs, dtype=np.int64), np.arange(start, stop, dtype=np.int64)
    starts = there * axis.size // axis.outputs - first
    stops = -(-(there + 1) * axis.size // axis.outputs) - first
    return np.array_equal(here * size // outputs, starts) and np.array_equal(
        -(-(here + 1) * size // outputs), stops
    )


def _band_spec(spec: PoolSpec, plan: PoolPlan, outputs: Range, inputs: Range) -> PoolSpec:
    """The spec whose windows over the input range are those of the output range."""
    if spec.adaptive_output is not None:
        counts = (outputs[1] - outputs[0], *(axis.outputs for axis in plan.axes[1:]))
        return replace(spec, adaptive_output=counts)
    windows = [axis.window for axis in plan.axes if isinstance(axis, SlidingAxis)]
    w = windows[0]
    first = outputs[0] * w.stride - w.padding_before
    last = (outputs[1] - 1) * w.stride - w.padding_before + w.extent
    # What ceil mode lets hang over the padding is left to ceil mode: it never counts in a divisor.
    after = max(0, min(last, plan.sizes[0] + w.padding_after) - inputs[1])
    pads = [(window.padding_before, window.padding_after) for window in windows[1:]]
    return replace(
        spec,
        kernel=tuple(window.kernel for window in windows),
        stride=tuple(window.stride for window in windows),
        dilation=tuple(window.dilation for window in windows),
        padding=((max(0, -first), after), *pads),
    )
