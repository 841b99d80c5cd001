"""Reductions of two elements to one; each is a type, so that kernels are compiled for it."""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


class Larger(NamedTuple):
    """The larger of two elements; the earlier one if they are equal or one is a NaN.

    Attributes:
        identity: result of a window without elements.
    """

    identity: Any


class Smaller(NamedTuple):
    """The smaller of two elements; the earlier one if they are equal or one is a NaN.

    Attributes:
        identity: result of a window without elements.
    """

    identity: Any


class Sum(NamedTuple):
    """The sum of two elements.

    Attributes:
        identity: result of a window without elements.
    """

    identity: Any


Operation = Larger | Smaller | Sum

_COMPARISONS = {Larger: ">", Smaller: "<"}


def _compare(
    builder: ir.IRBuilder, type_: Any, operation: Any, new: Any, old: Any, flags: Any
) -> ir.Value:
    sign = _COMPARISONS[operation.instance_class]
    if isinstance(type_, types.Float):
        return builder.fcmp_ordered(sign, new, old, flags=flags)
    compare = builder.icmp_signed if type_.signed else builder.icmp_unsigned
    return compare(sign, new, old)


def _combination(flags: tuple[str, ...]) -> Any:
    """Return an intrinsic that reduces a further element and the result so far to one."""

    @intrinsic
    def combined(typing: Any, value: Any, result: Any, operation: Any) -> Any:
        def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            new, old, _ = arguments
            if operation.instance_class is Sum:
                return builder.fadd(new, old)
            is_new = _compare(builder, value, operation, new, old, flags)
            is_float = isinstance(value, types.Float)
            return builder.select(is_new, new, old, flags=flags if is_float else ())

        return value(value, value, operation), build

    return combined


combine = _combination(())
# Without NaNs, and if either of two zeros will do, the compiler may reorder extremes and so spread
# one window over the lanes of a vector. It does not reorder sums.
combine_in_any_order = _combination(("nnan", "nsz"))


@intrinsic
def is_better(typing: Any, value: Any, best: Any, operation: Any) -> Any:
    """Return whether a further element is the extreme of itself and the best so far."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        new, old, _ = arguments
        return _compare(builder, value, operation, new, old, ())

    return types.boolean(value, value, operation), build


@intrinsic
def pick(typing: Any, is_new: Any, value: Any, other: Any) -> Any:
    """Return `value` if `is_new`, else `other`, without a branch."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.select(*arguments)

    return value(types.boolean, value, value), build
