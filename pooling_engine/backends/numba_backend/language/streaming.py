"""Results on their way to memory: computed in cache, and streamed past it if they are large.

A processor reads the lines that it is about to overwrite, unless the store is marked as
non-temporal; for a large gradient those reads are half of all traffic.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pooling_engine.backends.numba_backend.language.jit import part, routine
from pooling_engine.backends.numba_backend.language.pointers import Pointer, ahead, get, put

_LINE = 64  # bytes of a cache line
_INT64 = ir.IntType(64)
_VECTOR = ir.VectorType(_INT64, 2)


@intrinsic
def copy(typing: Any, source: Any, target: Any, count: Any) -> Any:
    """Copy `count` elements to memory that does not overlap theirs."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        start, target_start, number = arguments
        cgutils.raw_memcpy(builder, target_start, start, number, _item_bytes(context, source))
        return context.get_dummy_value()

    return types.none(source, target, types.int64), build


@part
def streaming_buffer(target: Pointer, scratch: Pointer, is_streamed: bool) -> Pointer:
    """Return where to compute elements that `stream` then moves to the target."""
    return scratch if is_streamed else target


@routine
def stream(scratch: Pointer, target: Pointer, count: int, is_streamed: bool) -> None:
    """Move `count` elements from scratch past the cache to the target, if they are streamed."""
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
def finish_streaming(typing: Any) -> Any:
    """Wait until all streamed elements are visible to other threads."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.none(), build


@intrinsic
def _until_line(typing: Any, target: Any) -> Any:
    """Return the number of elements before the next cache line that begins with an element.

    If no line does, because the elements are not aligned, return the largest integer.
    """

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        address, item = builder.ptrtoint(arguments[0], _INT64), _item_bytes(context, target)
        missing = builder.and_(builder.neg(address), ir.Constant(_INT64, _LINE - 1))
        elements = builder.udiv(missing, ir.Constant(_INT64, item))
        rest = builder.urem(missing, ir.Constant(_INT64, item))
        is_aligned = builder.icmp_unsigned("==", rest, ir.Constant(_INT64, 0))
        return builder.select(is_aligned, elements, ir.Constant(_INT64, (1 << 63) - 1))

    return types.int64(target), build


@intrinsic
def _per_line(typing: Any, target: Any) -> Any:
    """Return the number of elements of a cache line."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return ir.Constant(ir.IntType(64), _LINE // _item_bytes(context, target))

    return types.int64(target), build


@intrinsic
def _stream_line(typing: Any, source: Any, target: Any) -> Any:
    """Copy one cache line with non-temporal stores."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        start, target_start = (builder.bitcast(each, _VECTOR.as_pointer()) for each in arguments)
        nontemporal = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        numbers = [ir.Constant(ir.IntType(64), i) for i in range(_LINE // 16)]
        vectors = [builder.load(builder.gep(start, [i]), align=1) for i in numbers]
        for i, vector in zip(numbers, vectors, strict=True):
            store = builder.store(vector, builder.gep(target_start, [i]), align=16)
            store.set_metadata("nontemporal", nontemporal)
        return context.get_dummy_value()

    return types.none(source, target), build


def _item_bytes(context: Any, pointer: Any) -> int:
    return int(context.get_abi_sizeof(context.get_value_type(pointer.dtype)))
