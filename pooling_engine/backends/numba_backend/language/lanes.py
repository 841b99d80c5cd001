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


@intrinsic
def suffix_sums(typing: Any, source: Any, step: Any, count: Any, sums: Any) -> Any:
    """Write the sums of the last 1, 2, ... of `count` vectors of LANES elements, `step` apart.

    The sum from vector i on is vector i of `sums`. Elements are added from the last to the first.
    """

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        start, distance, number, target = arguments
        total = _Total(context, builder, source, sums)
        with cgutils.for_range(builder, number) as loop:
            index = builder.sub(builder.sub(number, loop.index), ir.Constant(_INT64, 1))
            total.add(builder.gep(start, [builder.mul(index, distance)]))
            total.store(builder.gep(target, [builder.mul(index, ir.Constant(_INT64, LANES))]))
        return context.get_dummy_value()

    return types.none(source, types.int64, types.int64, sums), build


@intrinsic
def window_sums(
    typing: Any,
    source: Any,
    step: Any,
    each: Any,
    suffixes: Any,
    suffix_step: Any,
    target: Any,
    target_step: Any,
    count: Any,
    prefix: Any,
) -> Any:
    """Write `count` sums of a suffix and a prefix; all are vectors of LANES elements.

    Before each sum, the next `each` vectors of `source`, `step` apart, are added to the prefix.
    Suffixes are `suffix_step` apart, results `target_step`.
    """

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        start, distance, number, others, others_step, results, results_step, outputs, own = (
            arguments
        )
        total = _Total(context, builder, source, prefix)
        total.load(own)
        with cgutils.for_range(builder, outputs) as output:
            first = builder.mul(output.index, number)
            with cgutils.for_range(builder, number) as tap:
                position = builder.add(first, tap.index)
                total.add(builder.gep(start, [builder.mul(position, distance)]))
            suffix = builder.gep(others, [builder.mul(output.index, others_step)])
            result = builder.gep(results, [builder.mul(output.index, results_step)])
            total.store_with(suffix, result)
        total.store(own)
        return context.get_dummy_value()

    integer = types.int64
    return types.none(
        source, integer, integer, suffixes, integer, target, integer, integer, prefix
    ), build


class _Total:
    """A vector of sums in a register, in code that is being built."""

    def __init__(self, context: Any, builder: ir.IRBuilder, source: Any, sums: Any) -> None:
        self._builder, self._given, self._wanted = builder, source.dtype, sums.dtype
        self._vector = ir.VectorType(context.get_value_type(sums.dtype), LANES)
        self._elements = ir.VectorType(context.get_value_type(source.dtype), LANES)
        is_float = isinstance(sums.dtype, types.Float)
        self._add = builder.fadd if is_float else builder.add
        self._place = cgutils.alloca_once(builder, self._vector)
        builder.store(ir.Constant(self._vector, None), self._place)

    def load(self, place: ir.Value) -> None:
        """Take the sums from memory."""
        self._builder.store(self._read(place, self._vector), self._place)

    def add(self, place: ir.Value) -> None:
        """Add a vector of elements in memory."""
        elements = self._read(place, self._elements)
        wide = _widened(self._builder, elements, self._given, self._wanted, self._vector)
        self._builder.store(self._add(self._builder.load(self._place), wide), self._place)

    def store(self, place: ir.Value) -> None:
        """Write the sums to memory."""
        self._write(self._builder.load(self._place), place)

    def store_with(self, other: ir.Value, place: ir.Value) -> None:
        """Write the sums plus other sums to memory."""
        sums = self._add(self._read(other, self._vector), self._builder.load(self._place))
        self._write(sums, place)

    def _read(self, place: ir.Value, type_: ir.Type) -> ir.Value:
        pointer = self._builder.bitcast(place, type_.as_pointer())
        return self._builder.load(pointer, align=1)

    def _write(self, sums: ir.Value, place: ir.Value) -> None:
        pointer = self._builder.bitcast(place, self._vector.as_pointer())
        self._builder.store(sums, pointer, align=1)


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
