"""Splitting of a call into chunks: groups of whole planes, or row bands of one plane.

Each chunk is a call on a box of the tensors. Together, the chunks give bit-identical results to the
whole call. A row band of a forward call includes every row that its windows reach. A row band of a
backward call includes every row of the output gradient that reaches its rows, so that one chunk
computes a row of the input gradient completely.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pooling_client._cutting.row_bands import (
    Range,
    even_ranges,
    fitting_ranges,
    output_ranges,
    row_band_spec,
)
from pooling_engine import Layout, PoolPlan, PoolSpec
from pooling_engine.plans import Axis, SlidingAxis, band_step, least_band_outputs

Box = tuple[slice, ...]
ALL = slice(None)

# Of a row band that would otherwise repeat more rows of its neighbours than it adds.
MAX_ROW_BAND_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Chunk:
    """Part of a call. Boxes are in the coordinates of the whole tensors.

    Attributes:
        spec: spec of the chunk.
        inputs: box of the input.
        outputs: box of the output, of the indices and of the output gradient.
        computed: box of the input gradient that a backward chunk computes completely.
        part: `computed` in the coordinates of the result of the chunk.
    """

    spec: PoolSpec
    inputs: Box
    outputs: Box
    computed: Box
    part: Box

    def box(self, name: str) -> Box:
        """Return the box of a tensor, by its name in the contract."""
        return self.inputs if name in ("input", "input_gradient") else self.outputs

    def input_shape(self, plan: PoolPlan) -> tuple[int, ...]:
        """Return the shape of the input of the chunk."""
        sides = zip(plan.input_shape, self.inputs, strict=True)
        return tuple(len(range(size)[side]) for size, side in sides)


@dataclass(frozen=True, slots=True)
class RowBytes:
    """Message bytes for each row of one plane, along the first spatial axis.

    Attributes:
        input_sent: row of the input, in the request.
        output_sent: row of the output gradient and of the indices, in the request.
        received: row of the output and its indices, or of the input gradient, in the reply.
    """

    input_sent: int
    output_sent: int
    received: int


def forward_row_bytes(plan: PoolPlan, index_bytes: int) -> RowBytes:
    """Return the row sizes of a forward call; `index_bytes` per index, 0 without indices."""
    input_row, output_row = _row_elements(plan)
    itemsize = plan.output_dtype.itemsize + index_bytes
    return RowBytes(input_row * plan.dtype.itemsize, 0, output_row * itemsize)


def backward_row_bytes(plan: PoolPlan, index_bytes: int, has_input: bool) -> RowBytes:
    """Return the row sizes of a backward call; `index_bytes` per index, 0 without indices."""
    input_row, output_row = _row_elements(plan)
    itemsize = plan.dtype.itemsize
    sent = input_row * itemsize if has_input else 0
    return RowBytes(sent, output_row * (itemsize + index_bytes), input_row * itemsize)


def forward_chunks(
    spec: PoolSpec,
    plan: PoolPlan,
    row_bytes: RowBytes,
    max_bytes: int,
    max_row_band_bytes: int = MAX_ROW_BAND_BYTES,
) -> Iterator[Chunk]:
    """Yield the chunks of a forward call, in order.

    Args:
        spec: spec of the call.
        plan: plan of the call.
        row_bytes: message bytes for each row.
        max_bytes: intended size of the tensors of a request or a reply. A chunk is larger if
            nothing smaller can be pooled alone.
        max_row_band_bytes: the same for a row band that repeats more rows than it adds.
    """
    splitter = _Splitter(spec, plan)

    def size(rows: int, outputs: int) -> int:
        return max(rows * row_bytes.input_sent, outputs * row_bytes.received)

    max_planes = max_bytes // size(plan.sizes[0], splitter.outputs)
    if splitter.fits_planes(max_planes):
        yield from splitter.plane_chunks(max_planes)
        return
    axis = splitter.axis
    repeated = axis.window.extent - axis.window.stride if isinstance(axis, SlidingAxis) else 0

    def fits(start: int, stop: int) -> bool:
        first, last = axis.inputs_of(start, stop)
        nbytes = splitter.unit * size(last - first, stop - start)
        is_mostly_repeated = (stop - start) * splitter.stride < repeated
        return nbytes <= (max_row_band_bytes if is_mostly_repeated else max_bytes)

    ranges = output_ranges(axis, band_step(plan), least_band_outputs(plan), fits)
    for planes in splitter.units():
        for outputs in ranges:
            yield splitter.row_band(planes, outputs, axis.inputs_of(*outputs))


def backward_chunks(
    spec: PoolSpec,
    plan: PoolPlan,
    row_bytes: RowBytes,
    max_bytes: int,
    max_row_band_bytes: int = MAX_ROW_BAND_BYTES,
) -> Iterator[Chunk]:
    """Yield the chunks of a backward call, in order. No chunk has rows that no window reaches.

    Args:
        spec: spec of the call.
        plan: plan of the call.
        row_bytes: message bytes for each row.
        max_bytes: intended size of the tensors of a request or a reply. A chunk is larger if
            nothing smaller can be pooled alone.
        max_row_band_bytes: the same for a row band that repeats more rows than it adds.
    """
    splitter = _Splitter(spec, plan)

    def size(rows: int, outputs: int) -> int:
        sent = rows * row_bytes.input_sent + outputs * row_bytes.output_sent
        return max(sent, rows * row_bytes.received)

    max_planes = max_bytes // size(plan.sizes[0], splitter.outputs)
    if splitter.fits_planes(max_planes):
        yield from splitter.plane_chunks(max_planes)
        return
    axis = splitter.axis
    repeated, step = 0, 1
    if isinstance(axis, SlidingAxis):
        repeated = 2 * (axis.window.extent - 1)
    else:  # windows cross every border except the end of a period
        step = axis.size // math.gcd(axis.size, axis.outputs)

    def fits(start: int, stop: int) -> bool:
        outputs = axis.outputs_of(start, stop)
        first, last = axis.inputs_of(*outputs)
        nbytes = splitter.unit * size(last - first, outputs[1] - outputs[0])
        return nbytes <= (max_row_band_bytes if stop - start < repeated else max_bytes)

    ranges = list(fitting_ranges(axis.size, step, fits))
    for planes in splitter.units():
        for rows in ranges:
            outputs = axis.outputs_of(*rows)
            if outputs[0] == outputs[1]:
                continue
            first, last = axis.inputs_of(*outputs)
            computed = max(first, rows[0]), min(last, rows[1])
            if computed[0] < computed[1]:
                yield splitter.row_band(planes, outputs, (first, last), computed)


def whole_call(spec: PoolSpec, plan: PoolPlan) -> Chunk:
    """Return one chunk of everything."""
    box = (ALL,) * len(plan.input_shape)
    return Chunk(spec, box, box, box, box)


def has_unreached_rows(plan: PoolPlan) -> bool:
    """Return whether the input may have rows that no window reaches; their gradient is zero."""
    axis = plan.axes[0]
    return isinstance(axis, SlidingAxis) and (
        axis.window.stride > axis.window.extent or axis.inputs_of(0, axis.outputs)[1] < axis.size
    )


class _Splitter:
    """Boxes of the tensors of one call.

    Attributes:
        axis: first spatial axis.
        outputs: size of that axis in the output.
        stride: rows of the input that one more output adds.
        unit: planes of a row band: one, or all channels in the channels-last layout.
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

    def fits_planes(self, max_planes: int) -> bool:
        """Return whether chunks consist of whole planes; a global window always requires that."""
        return max_planes >= self.unit or self._plan.is_global

    def plane_chunks(self, max_planes: int) -> Iterator[Chunk]:
        """Yield chunks of at most `max_planes` planes, and at least one unit of planes."""
        if max_planes >= self._channels or self._is_last:
            groups = (
                (slice(*samples), ALL)
                for samples in even_ranges(self._samples, max(1, max_planes // self._channels))
            )
        else:
            ranges = even_ranges(self._channels, max(1, max_planes))
            groups = (
                (slice(n, n + 1), slice(*channels))
                for n in range(self._samples)
                for channels in ranges
            )
        for planes in groups:
            box = self._box(planes, ALL)
            yield Chunk(self._spec, box, box, box, (ALL,) * len(box))

    def units(self) -> Iterator[tuple[slice, slice]]:
        """Yield the samples and channels of each unit of planes."""
        for n in range(self._samples):
            if self._is_last:
                yield slice(n, n + 1), ALL
            else:
                for c in range(self._channels):
                    yield slice(n, n + 1), slice(c, c + 1)

    def row_band(
        self,
        planes: tuple[slice, slice],
        outputs: Range,
        inputs: Range,
        computed: Range | None = None,
    ) -> Chunk:
        """Return the chunk of a range of output rows and the input rows that they reach."""
        first, last = inputs if computed is None else computed
        return Chunk(
            row_band_spec(self._spec, self._plan, outputs, inputs),
            self._box(planes, slice(*inputs)),
            self._box(planes, slice(*outputs)),
            self._box(planes, slice(first, last)),
            self._box((ALL, ALL), slice(first - inputs[0], last - inputs[0])),
        )

    def _box(self, planes: tuple[slice, slice], rows: slice) -> Box:
        n, c = planes
        spatial = (rows, *self._inner)
        return (n, *spatial, c) if self._is_last else (n, c, *spatial)


def _row_elements(plan: PoolPlan) -> tuple[int, int]:
    """Return the elements of one row along the first spatial axis, of the input and the output."""
    inner_outputs = () if plan.is_global else plan.axes[1:]
    return math.prod(plan.sizes[1:]), math.prod(axis.outputs for axis in inner_outputs)
