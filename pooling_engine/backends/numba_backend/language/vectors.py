"""Vectors of elements in registers, for kernels that a loop over elements does not describe.

LLVM compiles them for any processor; one without vectors of that width uses several.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

_INT32 = ir.IntType(32)
_NAMES = {types.float32: "f32", types.float64: "f64"}
_COMPRESSES_IN_REGISTERS = (20, 0, 0)  # the version of LLVM


class Vector(types.Type):  # type: ignore[misc]
    """Type of a vector: `lanes` elements of one type; booleans are a mask."""

    def __init__(self, dtype: Any, lanes: int) -> None:
        self.dtype, self.lanes = dtype, lanes
        super().__init__(f"Vector({dtype}, {lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, type_: Any) -> None:
        is_mask = type_.dtype == types.boolean
        element = ir.IntType(1) if is_mask else manager.lookup(type_.dtype).get_value_type()
        super().__init__(manager, type_, ir.VectorType(element, type_.lanes))


def _place(builder: ir.IRBuilder, type_: Any, pointer: Any, index: Any) -> ir.Value:
    return builder.bitcast(builder.gep(pointer, [index], inbounds=True), type_.as_pointer())


def _loader(lanes: int) -> Any:
    @intrinsic
    def load(typing: Any, pointer: Any, index: Any) -> Any:
        vector = Vector(pointer.dtype, lanes)

        def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            place = _place(builder, context.get_value_type(vector), *arguments)
            return builder.load(place, align=1)

        return vector(pointer, types.int64), build

    return load


load_4 = _loader(4)  # the elements from `index` on
load_8 = _loader(8)
load_16 = _loader(16)
load_64 = _loader(64)


@intrinsic
def store_vector(typing: Any, pointer: Any, index: Any, vector: Any) -> Any:
    """Write a vector from `index` on."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        place = _place(builder, arguments[2].type, arguments[0], arguments[1])
        builder.store(arguments[2], place, align=1)
        return context.get_dummy_value()

    return types.none(pointer, types.int64, vector), build


@intrinsic
def store_chosen(typing: Any, pointer: Any, index: Any, mask: Any, vector: Any) -> Any:
    """Write the lanes of a vector where a mask is true, side by side, from `index` on.

    As many elements as the vector has lanes may be overwritten.
    """

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        start, offset, chosen, lanes = arguments
        type_, name = lanes.type, f"v{vector.lanes}{_NAMES[vector.dtype]}"
        if binding.llvm_version_info < _COMPRESSES_IN_REGISTERS:
            place = builder.gep(start, [offset], inbounds=True)
            function = ir.FunctionType(ir.VoidType(), [type_, place.type, chosen.type])
            name = f"llvm.masked.compressstore.{name}"
            compress = cgutils.get_or_insert_function(builder.module, function, name)
            builder.call(compress, [lanes, place, chosen])
        else:
            function = ir.FunctionType(type_, [type_, chosen.type, type_])
            name = f"llvm.experimental.vector.compress.{name}"
            compress = cgutils.get_or_insert_function(builder.module, function, name)
            rest = ir.Constant(type_, ir.Undefined)
            place = _place(builder, type_, start, offset)
            builder.store(builder.call(compress, [lanes, chosen, rest]), place, align=1)
        return context.get_dummy_value()

    return types.none(pointer, types.int64, mask, vector), build


@intrinsic
def mask_at(typing: Any, pointer: Any, index: Any) -> Any:
    """Return the mask whose lanes are the bits of an integer, the lowest first."""
    vector = Vector(types.boolean, pointer.dtype.bitwidth)

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        bits = builder.load(builder.gep(arguments[0], [arguments[1]], inbounds=True), align=1)
        return builder.bitcast(bits, context.get_value_type(vector))

    return vector(pointer, types.int64), build


@intrinsic
def filled(typing: Any, value: Any, like: Any) -> Any:
    """Return a vector with `value` in every lane."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return _filled(builder, arguments[0], context.get_value_type(like))

    return like(value, like), build


def _filled(builder: ir.IRBuilder, value: ir.Value, type_: Any) -> ir.Value:
    first = builder.insert_element(ir.Constant(type_, ir.Undefined), value, _INT32(0))
    return _shuffled(builder, first, first, [0] * type_.count)


def _shuffled(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, lanes: list[int]) -> ir.Value:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_INT32, len(lanes)), lanes))


@intrinsic
def every_other(typing: Any, vector: Any) -> Any:
    """Return the first lane of a vector, the third, ...."""
    lanes = list(range(0, vector.lanes, 2))

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return _shuffled(builder, arguments[0], arguments[0], lanes)

    return Vector(vector.dtype, len(lanes))(vector), build


@intrinsic
def pick_lanes(typing: Any, mask: Any, vector: Any, other: Any) -> Any:
    """Return the lanes of `vector` where the mask is true, and of `other` elsewhere."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.select(*arguments)

    return vector(mask, vector, other), build


@intrinsic
def both(typing: Any, mask: Any, other: Any) -> Any:
    """Return a mask that is true where two masks are."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.and_(*arguments)

    return mask(mask, other), build


@intrinsic
def has_nan_lane(typing: Any, vector: Any) -> Any:
    """Return whether any lane is a NaN."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        is_nan = builder.fcmp_unordered("uno", arguments[0], arguments[0])
        bits = builder.bitcast(is_nan, ir.IntType(vector.lanes))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(vector), build


@intrinsic
def no_lanes(typing: Any, like: Any) -> Any:
    """Return a mask that is false in every lane."""
    mask = Vector(types.boolean, like.lanes)

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return ir.Constant(context.get_value_type(mask), None)

    return mask(like), build


@intrinsic
def either_has_nan(typing: Any, mask: Any, vector: Any, other: Any) -> Any:
    """Return a mask, with the lanes added where one of two vectors is a NaN."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        found, one, two = arguments
        return builder.or_(found, builder.fcmp_unordered("uno", one, two))

    return mask(mask, vector, other), build


@intrinsic
def is_any(typing: Any, mask: Any) -> Any:
    """Return whether a mask is true in any lane."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        bits = builder.bitcast(arguments[0], ir.IntType(mask.lanes))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(mask), build


@intrinsic
def widened(typing: Any, vector: Any) -> Any:
    """Return a vector of floats as float64."""
    wide = Vector(types.float64, vector.lanes)

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        if vector == wide:
            return arguments[0]
        return builder.fpext(arguments[0], context.get_value_type(wide))

    return wide(vector), build


@intrinsic
def rounded(typing: Any, vector: Any) -> Any:
    """Return a vector of float64 rounded to float32, without -0.0."""
    narrow = Vector(types.float32, vector.lanes)

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        type_ = context.get_value_type(narrow)
        return builder.fadd(builder.fptrunc(arguments[0], type_), ir.Constant(type_, None))

    return narrow(vector), build


@intrinsic
def with_canonical_nans(typing: Any, vector: Any) -> Any:
    """Return a vector with every NaN replaced by the canonical one."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        type_ = context.get_value_type(vector)
        nan = _filled(builder, context.get_constant(vector.dtype, float("nan")), type_)
        is_number = builder.fcmp_ordered("ord", arguments[0], arguments[0])
        return builder.select(is_number, arguments[0], nan)

    return vector(vector), build


@intrinsic
def sum_of(typing: Any, vector: Any, other: Any) -> Any:
    """Return the sum of two vectors."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.fadd(*arguments)

    return vector(vector, other), build


@intrinsic
def product_of(typing: Any, vector: Any, other: Any) -> Any:
    """Return the products of two vectors."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.fmul(*arguments)

    return vector(vector, other), build


@intrinsic
def quotient_of(typing: Any, vector: Any, divisors: Any) -> Any:
    """Return the quotients of two vectors."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.fdiv(*arguments)

    return vector(vector, divisors), build


@intrinsic
def quotient_by_inverse(typing: Any, vector: Any, divisors: Any, inverses: Any) -> Any:
    """Return the quotients of float64 by integers up to 2^20, without a division.

    The remainder of the product with the rounded inverse corrects that product (P. Markstein,
    "Computation of elementary functions on the IBM RISC System/6000 processor", 1990). The
    quotient is the correctly rounded one: a product that is off by some units in the last place
    has an exact remainder, and no quotient is as near to the middle of two float64 as the error
    that is left. A quotient that is infinite becomes a NaN.
    """

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        sums, by, inverse = arguments
        type_ = sums.type
        function = ir.FunctionType(type_, [type_] * 3)
        name = f"llvm.fma.v{vector.lanes}f64"
        fma = cgutils.get_or_insert_function(builder.module, function, name)
        first = builder.fmul(sums, inverse)
        rest = builder.call(fma, [builder.fneg(first), by, sums])
        return builder.call(fma, [rest, inverse, first])

    return vector(vector, divisors, inverses), build
