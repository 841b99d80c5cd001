"""Sums of long runs of elements, in the lanes that `rules.LANES` defines, as vectors.

A lane per element of a vector keeps all of them in registers, which a loop over lanes does not.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pooling_engine.backends.rules import LANES

_INT64, _INT32 = ir.IntType(64), ir.IntType(32)
_ZERO = ir.Constant(_INT64, 0)


@intrinsic
def add_in_lanes(typing: Any, source: Any, count: Any, lanes: Any) -> Any:
    """Add `count` elements to `LANES` sums, element i to lane ``i % LANES``.

    The elements are summed from zero and then added to the lanes. Floats are summed in float64,
    integers in the type of the lanes.
    """

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        start, number, target = arguments
        element = context.get_value_type(source.dtype)
        lane = context.get_value_type(lanes.dtype)
        vector, loaded = ir.VectorType(lane, LANES), ir.VectorType(element, LANES)
        add = builder.fadd if isinstance(lanes.dtype, types.Float) else builder.add
        total = cgutils.alloca_once_value(builder, ir.Constant(vector, None))

        def add_row(elements: ir.Value) -> None:
            wide = _widened(builder, elements, source.dtype, lanes.dtype, vector)
            builder.store(add(builder.load(total), wide), total)

        length = ir.Constant(_INT64, LANES)
        rows = builder.sdiv(number, length)
        with cgutils.for_range(builder, rows) as loop:
            row = builder.gep(start, [builder.mul(loop.index, length)])
            add_row(builder.load(builder.bitcast(row, loaded.as_pointer()), align=1))
        rest = builder.srem(number, length)
        with builder.if_then(builder.icmp_signed("!=", rest, _ZERO)):
            row = builder.gep(start, [builder.mul(rows, length)])
            add_row(_load_first(builder, row, rest, loaded, source.dtype))
        place = builder.bitcast(target, vector.as_pointer())
        builder.store(add(builder.load(place, align=8), builder.load(total)), place, align=8)
        return context.get_dummy_value()

    return types.none(source, types.int64, lanes), build


@intrinsic
def sum_of_lanes(typing: Any, lanes: Any) -> Any:
    """Return the sum of the lanes: repeatedly, the upper half is added to the lower half."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        vector = ir.VectorType(context.get_value_type(lanes.dtype), LANES)
        add = builder.fadd if isinstance(lanes.dtype, types.Float) else builder.add
        total = builder.load(builder.bitcast(arguments[0], vector.as_pointer()), align=8)
        half = LANES // 2
        while half:
            parts = [
                builder.shuffle_vector(total, ir.Constant(total.type, ir.Undefined), _mask(numbers))
                for numbers in (range(half), range(half, 2 * half))
            ]
            total = add(*parts)
            half //= 2
        return builder.extract_element(total, ir.Constant(_INT32, 0))

    return lanes.dtype(lanes), build


def _mask(numbers: range) -> ir.Constant:
    return ir.Constant(ir.VectorType(_INT32, len(numbers)), list(numbers))


def _widened(builder: ir.IRBuilder, value: ir.Value, given: Any, wanted: Any, type_: Any) -> Any:
    if isinstance(given, types.Float):
        return value if given == wanted else builder.fpext(value, type_)
    if given == wanted:
        return value
    return builder.sext(value, type_) if given.signed else builder.zext(value, type_)


def _load_first(
    builder: ir.IRBuilder, place: ir.Value, count: ir.Value, vector: Any, element: Any
) -> ir.Value:
    """Load fewer elements than a vector has; the others are zero."""
    numbers = ir.Constant(ir.VectorType(_INT64, LANES), list(range(LANES)))
    limit = builder.insert_element(ir.Constant(numbers.type, ir.Undefined), count, _ZERO)
    limits = builder.shuffle_vector(limit, limit, ir.Constant(ir.VectorType(_INT32, LANES), None))
    is_loaded = builder.icmp_signed("<", numbers, limits)
    kind = f"f{element.bitwidth}" if isinstance(element, types.Float) else f"i{element.bitwidth}"
    pointer = vector.as_pointer()
    signature = ir.FunctionType(vector, [pointer, _INT32, is_loaded.type, vector])
    load = cgutils.get_or_insert_function(
        builder.module, signature, f"llvm.masked.load.v{LANES}{kind}.p0"
    )
    arguments = builder.bitcast(place, pointer), _INT32(1), is_loaded, ir.Constant(vector, None)
    return builder.call(load, arguments)
