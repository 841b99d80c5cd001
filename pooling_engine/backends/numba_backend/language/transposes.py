"""Transposed blocks of elements, by shuffles of vectors in registers."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pooling_engine.backends.numba_backend.language.jit import routine
from pooling_engine.backends.numba_backend.language.pointers import Pointer, ahead

_INT32 = ir.IntType(32)
_SIDE = 8


@routine
def transpose(
    source: Pointer, pitch: int, target: Pointer, target_pitch: int, rows: int, columns: int
) -> None:
    """Transpose a matrix of at least 8 rows and columns.

    Args:
        source: the rows.
        pitch: distance between them.
        target: the transposed rows; as many as there are columns.
        target_pitch: distance between them.
        rows: number of rows of the source.
        columns: number of columns of the source.
    """
    for across in range(-(-columns // _SIDE)):
        column = min(across * _SIDE, columns - _SIDE)
        for down in range(-(-rows // _SIDE)):
            row = min(down * _SIDE, rows - _SIDE)
            place = ahead(source, row * pitch + column)
            transpose_block(place, pitch, ahead(target, column * target_pitch + row), target_pitch)


@intrinsic
def transpose_block(typing: Any, source: Any, pitch: Any, target: Any, target_pitch: Any) -> Any:
    """Transpose a block of 8 rows and columns."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        start, step, results, results_step = arguments
        vector = ir.VectorType(context.get_value_type(source.dtype), _SIDE)
        rows = []
        for number in range(_SIDE):
            place = _row_at(builder, start, step, number, vector)
            rows.append(builder.load(place, align=1))
        distance = _SIDE // 2
        while distance:
            _exchange(builder, rows, distance)
            distance //= 2
        for number, row in enumerate(rows):
            builder.store(row, _row_at(builder, results, results_step, number, vector), align=1)
        return context.get_dummy_value()

    return types.none(source, types.int64, target, types.int64), build


def _row_at(
    builder: ir.IRBuilder, start: ir.Value, step: ir.Value, number: int, vector: Any
) -> ir.Value:
    offset = builder.mul(step, ir.Constant(step.type, number))
    return builder.bitcast(builder.gep(start, [offset], inbounds=True), vector.as_pointer())


def _exchange(builder: ir.IRBuilder, rows: list[ir.Value], distance: int) -> None:
    """Exchange the off-diagonal parts of blocks of ``2 * distance`` rows and columns."""
    lanes = range(_SIDE)
    upper = [lane if not lane & distance else lane - distance + _SIDE for lane in lanes]
    lower = [lane + distance if not lane & distance else lane + _SIDE for lane in lanes]
    for number in lanes:
        if not number & distance:
            a, b = rows[number], rows[number + distance]
            for place, chosen in ((number, upper), (number + distance, lower)):
                mask = ir.Constant(ir.VectorType(_INT32, _SIDE), chosen)
                rows[place] = builder.shuffle_vector(a, b, mask)
