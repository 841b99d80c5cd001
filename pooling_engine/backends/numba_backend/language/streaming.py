"""Results on their way to memory: made in cache, and streamed past it where they are large.

A processor reads what it is about to overwrite, unless a store says that nobody will need it soon;
of a large gradient that is half of all traffic.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pooling_engine.backends.numba_backend.language.jit import part, routine
from pooling_engine.backends.numba_backend.language.pointers import ahead, get, put

STREAMED_BYTES = 8 << 20  # results over this do not stay in cache anyway
_LINE = 64  # bytes
_VECTOR = ir.VectorType(ir.IntType(64), 2)


@intrinsic
def copy(typing: Any, source: Any, target: Any, count: Any) -> Any:
    """Copies `count` elements to where none of them is."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start, place, number = arguments
        cgutils.raw_memcpy(builder, place, start, number, _item_bytes(context, source))
        return context.get_dummy_value()

    return types.none(source, target, types.int64), build


@part
def place_for(target: Any, scratch: Any, is_streamed: bool) -> Any:
    """Where to compute what `send` puts into the target."""
    return scratch if is_streamed else target


@routine
def send(scratch: Any, target: Any, count: int, is_streamed: bool) -> None:
    """Streams `count` elements from scratch to the target, unless they are there already."""
    if is_streamed:
        first = min(count, _until_line(target))
        for i in range(first):
            put(target, i, get(scratch, i))
        lines = (count - first) // _per_line(target)
        for line in range(lines):
            at = first + line * _per_line(target)
            _stream_line(ahead(scratch, at), ahead(target, at))
        for i in range(first + lines * _per_line(target), count):
            put(target, i, get(scratch, i))


@intrinsic
def finish(typing: Any) -> Any:
    """Waits until everything that was streamed is where other threads see it."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.none(), build


@intrinsic
def _until_line(typing: Any, target: Any) -> Any:
    """How many elements are before the next line of the cache."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = builder.ptrtoint(arguments[0], ir.IntType(64))
        missing = builder.and_(builder.neg(address), ir.Constant(ir.IntType(64), _LINE - 1))
        return builder.udiv(missing, ir.Constant(ir.IntType(64), _item_bytes(context, target)))

    return types.int64(target), build


@intrinsic
def _per_line(typing: Any, target: Any) -> Any:
    """How many elements a line of the cache has."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(ir.IntType(64), _LINE // _item_bytes(context, target))

    return types.int64(target), build


@intrinsic
def _stream_line(typing: Any, source: Any, target: Any) -> Any:
    """Copies one line, past the cache."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start, place = (builder.bitcast(each, _VECTOR.as_pointer()) for each in arguments)
        past = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        numbers = [ir.Constant(ir.IntType(64), i) for i in range(_LINE // 16)]
        vectors = [builder.load(builder.gep(start, [i]), align=1) for i in numbers]
        for i, vector in zip(numbers, vectors, strict=True):
            store = builder.store(vector, builder.gep(place, [i]), align=16)
            store.set_metadata("nontemporal", past)
        return context.get_dummy_value()

    return types.none(source, target), build


def _item_bytes(context: Any, pointer: Any) -> int:
    return int(context.get_abi_sizeof(context.get_value_type(pointer.dtype)))
