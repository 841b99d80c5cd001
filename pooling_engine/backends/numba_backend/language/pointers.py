"""Pointers to elements, for the inner loops of kernels.

Indexing an array tests for negative indices, and slicing one tests far more; these tests keep loops
over short rows from being vectorised. A pointer tests nothing: plans are validated before kernels
run. Tensors may begin at any byte, as in a received message, so pointers assume no alignment.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

Row = NDArray[Any]  # the elements of a tensor, as a flat array
Element = Any  # one element, of whichever type the tensor has


class Pointer:
    """Pointer to elements of one type; exists in compiled code only."""


@intrinsic
def pointer_to(typing: Any, array: Any, offset: Any) -> Any:
    """Return a pointer to element `offset` of a contiguous one-dimensional array.

    It does not keep the array alive: an array that the kernel allocates is freed after its last
    use. So take pointers to scratch inside the loop over the tiles, in every iteration.
    """

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.gep(view.data, [arguments[1]])

    return types.CPointer(array.dtype)(array, types.int64), build


@intrinsic
def aligned(typing: Any, pointer: Any) -> Any:
    """Return the first pointer from `pointer` on that is a multiple of 64 bytes.

    Vectors of 64 bytes at other places take two accesses.
    """

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        address = builder.ptrtoint(arguments[0], ir.IntType(64))
        rounded = builder.and_(
            builder.add(address, ir.Constant(address.type, 63)), ir.Constant(address.type, -64)
        )
        return builder.inttoptr(rounded, arguments[0].type)

    return pointer(pointer), build


@intrinsic
def ahead(typing: Any, pointer: Any, count: Any) -> Any:
    """Return the pointer `count` elements further on."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.gep(arguments[0], [arguments[1]], inbounds=True)

    return pointer(pointer, types.int64), build


@intrinsic
def get(typing: Any, pointer: Any, index: Any) -> Any:
    """Return the element at `index`."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(builder.gep(arguments[0], [arguments[1]], inbounds=True), align=1)

    return pointer.dtype(pointer, types.int64), build


@intrinsic
def put(typing: Any, pointer: Any, index: Any, value: Any) -> Any:
    """Write the element at `index`."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.gep(arguments[0], [arguments[1]], inbounds=True)
        builder.store(arguments[2], place, align=1)
        return context.get_dummy_value()

    return types.none(pointer, types.int64, pointer.dtype), build


@intrinsic
def convert(typing: Any, value: Any, pointer: Any) -> Any:
    """Return a number converted to the element type of a pointer."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return context.cast(builder, arguments[0], signature.args[0], signature.return_type)

    return pointer.dtype(value, pointer), build
