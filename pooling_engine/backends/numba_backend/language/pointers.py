"""Pointers to elements, for the inner loops of kernels.

Indexing an array costs a check for negative indices and slicing one costs many, which keep loops
over short rows from being vectorised. A pointer checks nothing: kernels compute with plans that
have been checked.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic


@intrinsic
def pointer_to(typing: Any, array: Any, offset: Any) -> Any:
    """A pointer to element `offset` of a contiguous one-dimensional array.

    It does not keep the array: one that a kernel has made for itself is freed after its last use.
    So pointers to scratch are taken inside the loop over the slabs, each time anew.
    """

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.gep(view.data, [arguments[1]])

    return types.CPointer(array.dtype)(array, types.int64), build


@intrinsic
def ahead(typing: Any, pointer: Any, count: Any) -> Any:
    """The pointer `count` elements further on."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.gep(arguments[0], [arguments[1]], inbounds=True)

    return pointer(pointer, types.int64), build


@intrinsic
def get(typing: Any, pointer: Any, index: Any) -> Any:
    """The element at `index`."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(builder.gep(arguments[0], [arguments[1]], inbounds=True))

    return pointer.dtype(pointer, types.int64), build


@intrinsic
def put(typing: Any, pointer: Any, index: Any, value: Any) -> Any:
    """Writes the element at `index`."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.gep(arguments[0], [arguments[1]], inbounds=True)
        builder.store(arguments[2], place)
        return context.get_dummy_value()

    return types.none(pointer, types.int64, pointer.dtype), build


@intrinsic
def lift(typing: Any, value: Any, pointer: Any) -> Any:
    """The value in the element type of a pointer."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.cast(builder, arguments[0], signature.args[0], signature.return_type)

    return pointer.dtype(value, pointer), build
