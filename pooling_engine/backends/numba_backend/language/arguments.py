"""Arguments of the kernels: records that plain Python fills (`tables/`) and kernels read.

A kernel receives its records whole, after the tensors. Sizes are in elements unless noted.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

UNCHANGED = -1  # `AxisRow.ranges` of a first axis whose outputs are its elements


class ElementType(NamedTuple):
    """The type that the elements of a tensor have, and the type that they are computed in.

    Attributes:
        zero: zero of the type they are computed in: float32 for 16-bit floats, else their own type.
        is_bfloat16: whether 16-bit elements are bfloat16; else they are float16.
    """

    zero: Any
    is_bfloat16: bool


class AxisRow(NamedTuple):
    """One spatial axis: a row of the `axes` tables.

    Attributes:
        size: positions of the input.
        outputs: positions of the output.
        taps: taps of one window; of the largest, if they differ.
        stride: distance from window to window; 0 if it varies.
        dilation: distance from tap to tap.
        ranges: where the tap ranges of the axis begin in `WindowTables.tap_ranges`, or UNCHANGED.
        inside: first of the outputs whose taps are all on elements, `stride` apart.
        inside_end: one after the last of them.
        is_wide: 1 if extremes are selected in blocks of taps (`select_wide.py`), else 0.
    """

    size: int
    outputs: int
    taps: int
    stride: int
    dilation: int
    ranges: int
    inside: int
    inside_end: int
    is_wide: int


AXIS_COLUMNS = len(AxisRow._fields)


class WindowTables(NamedTuple):
    """The windows of a plan, for the kernels of the forward pass.

    Attributes:
        axes: an `AxisRow` for each spatial axis, at least two; a single spatial axis is preceded
            by one of the planes.
        tap_ranges: for each axis the position of the first tap of all outputs, then their first
            taps on elements, then the ends of their taps on elements; nothing for an UNCHANGED
            axis.
        inner: elements side by side at one position (1, or C).
        height: outputs of a tile along the first axis; the last tile of a plane may have fewer.
        tiles: tiles of all planes.
        element: type of the elements.
        identity: result of a window without elements, in the type of `element.zero`.
        rejects_nan: whether NaNs among extremes are an error.
    """

    axes: Integers
    tap_ranges: Integers
    inner: int
    height: int
    tiles: int
    element: ElementType
    identity: Any
    rejects_nan: bool


class ScanTables(NamedTuple):
    """The windows of a plan, for `scan_sum_pool`.

    Attributes:
        axes: as in `WindowTables`.
        tap_ranges: the same.
        is_scanned: for each axis, whether its windows are summed by scans.
        inner: elements side by side at one position (1, or C).
        height: outputs of a tile along the first axis; the last tile of a plane may have fewer.
        group: rows that are transposed together.
        suffixes: elements of the largest list of suffixes.
        columns: elements of the transposed rows.
        sums: elements of their sums.
        vectors: elements of the longest vector, of the transposed rows, and of their sums.
        tiles: tiles of all planes.
        element: type of the elements.
    """

    axes: Integers
    tap_ranges: Integers
    is_scanned: NDArray[np.uint8]
    inner: int
    height: int
    group: int
    suffixes: int
    columns: int
    sums: int
    vectors: int
    tiles: int
    element: ElementType


class LargeSizes(NamedTuple):
    """Sizes of planes and of large windows with a stride of 1.

    Attributes:
        height: rows of a plane.
        width: elements of a row.
        outputs: rows of outputs.
        out_row: outputs in a row.
        taps: taps of a window along the first axis.
        row_taps: the same along the last axis.
        above: rows of padding before a plane.
        before: elements of padding before a row.
        pitch: distance between rows once they are padded.
        tile: rows of outputs of a tile; the last tile of a plane may have fewer.
    """

    height: int
    width: int
    outputs: int
    out_row: int
    taps: int
    row_taps: int
    above: int
    before: int
    pitch: int
    tile: int


class LargeTables(NamedTuple):
    """Large windows with a stride of 1, for the kernels of `large_max_min.py`.

    Attributes:
        sizes: their sizes.
        group: rows that are padded together.
        room: elements of the padded rows, and those that their vectors may reach.
        tiles: tiles of all planes.
        element: type of the elements.
        identity: extreme of no elements, in the type of `element.zero`.
        rejects_nan: whether NaNs among extremes are an error.
    """

    sizes: LargeSizes
    group: int
    room: int
    tiles: int
    element: ElementType
    identity: Any
    rejects_nan: bool


class LargeSums(NamedTuple):
    """Large windows with a stride of 1, for `large_sum_pool`.

    Attributes:
        sizes: their sizes.
        scans: whether windows are summed by scans, or tap by tap.
        tiles: tiles of all planes.
    """

    sizes: LargeSizes
    scans: bool
    tiles: int


class LargeDivisors(NamedTuple):
    """The divisors of an average, for `large_sum_pool`.

    Attributes:
        rows: a factor of the divisors for each row of outputs; empty if all have one divisor.
        columns: the other factor, for each output of a row; empty like `rows`.
        divisor: divisor of all outputs; 0 if the factors apply.
        inverse: its inverse if `quotient_by_inverse` is exact, else 0.
    """

    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    divisor: float
    inverse: float


class Divisors(NamedTuple):
    """The divisors of an average.

    Attributes:
        factors: the divisor of every output as a product over the axes: the factors of the first
            axis (unless it is UNCHANGED), then those of the second, ...; empty if all outputs
            have one divisor.
        rows: the product of the factors of all axes but the last, for each row along it of a
            plane; one for all rows if the first of two axes is UNCHANGED; empty like `factors`.
        divisor: that divisor; 1 if `factors` is not empty.
    """

    factors: NDArray[np.float64]
    rows: NDArray[np.float64]
    divisor: float


ROW_TAPS = 3  # of windows along short rows


class FlatSizes(NamedTuple):
    """Sizes of a group of small planes, for extremes; without arrays, which are counted.

    Attributes:
        size: elements of a group.
        out_size: outputs of a group.
        row_step: distance from tap to tap along a row.
        before: elements of padding before a row.
        column_step: distance from tap to tap along the first axis.
        taps: taps along the first axis.
        vectors: vectors of a group of elements.
        out_vectors: vectors that have outputs.
        margin: elements before and after a group that its vectors may reach.
        above: elements before a group in the padding above the first plane.
    """

    size: int
    out_size: int
    row_step: int
    before: int
    column_step: int
    taps: int
    vectors: int
    out_vectors: int
    margin: int
    above: int


class FlatTables(NamedTuple):
    """The windows of groups of small planes, for the kernels of `forward/short_rows_max_min.py`.

    Attributes:
        sizes: sizes of a group.
        row_masks: a bit for each lane of each vector and tap along rows: whether the tap is on an
            element.
        places: for each vector that has outputs, the position of its first lane, in the padding
            negative, and the number of its first output.
        column_masks: a bit for each lane of each such vector: for each tap along the first axis,
            whether it is on an element; then, whether the lane is an output.
        rejects_nan: whether NaNs among extremes are an error.
        tiles: groups; each is a tile.
    """

    sizes: FlatSizes
    row_masks: NDArray[np.uint16]
    places: Integers
    column_masks: NDArray[np.uint16]
    rejects_nan: bool
    tiles: int


class RowSizes(NamedTuple):
    """Sizes of small planes with short rows; without arrays, which are counted in every call.

    Attributes:
        height: rows of a plane.
        width: elements of a row.
        size: elements of a plane.
        outputs: rows of outputs.
        out_row: outputs in a row.
        out_size: outputs of a plane.
        row_step: distance from tap to tap along a row.
        stride: distance from window to window along a row: 1 or 2.
        before: elements of padding before a row.
        column_step: rows from tap to tap along the first axis.
        margin: elements before and after a plane that its vectors may reach.
    """

    height: int
    width: int
    size: int
    outputs: int
    out_row: int
    out_size: int
    row_step: int
    stride: int
    before: int
    column_step: int
    margin: int


class RowTables(NamedTuple):
    """The windows of small planes with short rows, for `short_rows_sum_pool`.

    Attributes:
        sizes: sizes of the planes.
        limits: for each row of outputs, the first row with a tap; then the numbers of those rows.
        masks: a bit for each lane of the last vector of a row: whether it is on an element.
        tiles: planes; each is a tile.
    """

    sizes: RowSizes
    limits: Integers
    masks: NDArray[Any]
    tiles: int


class RowDivisors(NamedTuple):
    """The divisors of small planes with short rows, for `short_rows_sum_pool`.

    Attributes:
        divisors: the divisor of every output of a row, with ones after them; for each row, or once.
        inverses: their inverses.
        step: distance from row to row of divisors; 0 if all rows have the same.
        pitch: distance from row to row of sums.
    """

    divisors: NDArray[np.float64]
    inverses: NDArray[np.float64]
    step: int
    pitch: int


class PlaneTables(NamedTuple):
    """The planes of a global window, for the kernels of `global_sum.py`.

    Attributes:
        size: positions of a plane.
        channels: elements side by side at one position (1, or C).
        divisor: divisor of every sum.
        tiles: planes; each is a tile.
        element: type of the elements.
    """

    size: int
    channels: int
    divisor: float
    tiles: int
    element: ElementType


class SpreadTables(NamedTuple):
    """The outputs whose windows reach each input position, axis by axis, for `spread_gradients`.

    Attributes:
        axes: an `AxisRow` for each spatial axis, as in `WindowTables`.
        starts: for each axis, the position of the first tap of its first window.
        ends: for each axis, where the outputs that reach each position end in `outputs`,
            preceded by 0.
        outputs: for each axis, the outputs that reach its first position, its second, ...; those
            of one position in the order of their taps.
        parts: for each axis, where its part of `ends` begins, and where its part of `outputs`.
        inner: elements side by side at one position (1, or C).
        height: positions of a tile along the first axis; the last tile of a plane may have fewer.
        tiles: tiles of all planes of the input.
        element: type of the elements.
    """

    axes: Integers
    starts: Integers
    ends: Integers
    outputs: Integers
    parts: Integers
    inner: int
    height: int
    tiles: int
    element: ElementType


class CollectTables(NamedTuple):
    """The outputs that reach every element of a small plane, for `collect_planes`.

    Attributes:
        slots: for each axis that has windows, a table: the place of the first output that reaches
            each element of a plane once that axis is collected, then of the second, ...; -1 if
            there are fewer. Outputs of a position are in the order of their taps.
        steps: for each table, where it begins, its number of elements, and its number of outputs
            for each.
        divisors: divisor of each output of a plane; empty if all outputs have one divisor.
        divisor: that divisor.
        outputs: outputs of a plane.
        size: elements of a plane.
        largest: elements of the largest intermediate result of a plane.
        planes: number of planes.
        height: planes of a tile; the last tile may have fewer.
        tiles: tiles of all planes.
        element: type of the elements.
    """

    slots: NDArray[np.int32]
    steps: Integers
    divisors: NDArray[np.float64]
    divisor: float
    outputs: int
    size: int
    largest: int
    planes: int
    height: int
    tiles: int
    element: ElementType


class ScatterTables(NamedTuple):
    """The windows of a plan, for `scatter_gradients`: the first axis, and all others together.

    Attributes:
        starts: for each output along the first axis, the position of its first tap.
        firsts: for each of them, its first tap on an element.
        stops: for each of them, the tap after its last on an element.
        tile_outputs: for each tile of a plane, the first output along the first axis that reaches
            it, and one after the last.
        cells: for each output at one position of the first axis, the offset of its first tap
            along the other axes.
        limits: for each axis but the first, from the last on: the first taps on elements of the
            same outputs, then the taps after their last ones.
        splits: for each of these axes, the taps of a window, and the offset from tap to tap.
        window: taps of a window along all axes.
        step: offset from tap to tap along the first axis.
        size: positions along the first axis.
        row: input elements at each of them.
        height: positions of a tile along the first axis; the last tile of a plane may have fewer.
        overlaps: whether an element may be in several windows.
        lanes: parts of equal length that the outputs at one position of the first axis have, so
            that no element is in windows of two parts: 1, 2 or 4.
        is_streamed: whether the gradient is written past the cache.
        tiles: tiles of all planes of the input.
        element: type of the elements.
    """

    starts: Integers
    firsts: Integers
    stops: Integers
    tile_outputs: Integers
    cells: NDArray[np.int32]
    limits: NDArray[np.int32]
    splits: Integers
    window: int
    step: int
    size: int
    row: int
    height: int
    overlaps: bool
    lanes: int
    is_streamed: bool
    tiles: int
    element: ElementType


class GatherTables(NamedTuple):
    """The outputs whose windows reach each position of a plane, for `gather_gradients`.

    The outputs along the first axis are listed apart; those along the other axes are listed
    together, by their number at one position of the first axis.

    Attributes:
        ends: where the outputs that reach each position of the first axis end in `outputs`,
            preceded by 0.
        outputs: those outputs, in order.
        taps: for each of them, its part of the number of the tap that reaches the position.
        rest_ends: the same as `ends`, for the positions of the other axes.
        rest_outputs: the same as `outputs`.
        rest_taps: the same as `taps`; tap numbers are the sum of both parts.
        tile_outputs: for each tile of a plane, the first output along the first axis that reaches
            it, and one after the last.
        row_classes: for each output along the first axis, the class of its window.
        cell_classes: for each output along the others, its class, counted from there.
        legal: for each class and each value of an index, 1 if that value is legal.
        limits: for each class, the first value that is not legal.
        values: number of values of an index.
        length: elements side by side at one position: the channels.
        height: positions of a tile along the first axis; the last tile of a plane may have fewer.
        tiles: tiles of all planes of the input.
        element: type of the elements.
    """

    ends: Integers
    outputs: Integers
    taps: Integers
    rest_ends: Integers
    rest_outputs: Integers
    rest_taps: Integers
    tile_outputs: Integers
    row_classes: Integers
    cell_classes: Integers
    legal: NDArray[np.uint8]
    limits: Integers
    values: int
    length: int
    height: int
    tiles: int
    element: ElementType


class AdjacentTables(NamedTuple):
    """The adjacent windows of a plan, for the kernels in `backward/non_overlapping.py`.

    Attributes:
        cells: for each row of windows at one output of the first axis, the offset of its first
            element.
        offsets: for each row of taps of a window, its offset from the window's first element.
        outputs: outputs along the first axis.
        row: outputs in a row of windows.
        step: elements from one output of the first axis to the next.
        size: elements of a plane.
        height: outputs of a tile along the first axis; the last tile of a plane may have fewer.
        is_streamed: whether the gradient is written past the cache.
        tiles: tiles of all planes.
        element: type of the elements.
    """

    cells: Integers
    offsets: Integers
    outputs: int
    row: int
    row_taps: int
    step: int
    size: int
    height: int
    is_streamed: bool
    tiles: int
    element: ElementType
