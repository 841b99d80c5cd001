"""What a fold does to two elements; each operation is a type, so that kernels are made for it."""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import types
from numba.extending import intrinsic


class Larger(NamedTuple):
    """The larger of two; the one held, if they are equal or one is a NaN."""


class Smaller(NamedTuple):
    """The smaller of two; the one held, if they are equal or one is a NaN."""


class Sum(NamedTuple):
    """The sum of two."""


Operation = Larger | Smaller | Sum
LARGER, SMALLER, SUM = Larger(), Smaller(), Sum()


# Extremes of floats are folded where no NaNs are, and which of two zeros is taken is left open:
# that makes a long window a reduction that the compiler may spread over the lanes of a vector.
_FLAGS = ("nnan", "nsz")
_COMPARISONS = {Larger: ">", Smaller: "<"}


@intrinsic
def combine(typing: Any, value: Any, held: Any, operation: Any) -> Any:
    """What an operation makes of a further value and what is held so far."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        is_float = isinstance(value, types.Float)
        new, old, _ = arguments
        if operation.instance_class is Sum:
            return builder.fadd(new, old) if is_float else builder.add(new, old)
        sign = _COMPARISONS[operation.instance_class]
        if is_float:
            return builder.select(
                builder.fcmp_ordered(sign, new, old, flags=_FLAGS), new, old, flags=_FLAGS
            )
        compare = builder.icmp_signed if value.signed else builder.icmp_unsigned
        return builder.select(compare(sign, new, old), new, old)

    return value(value, value, operation), build


@intrinsic
def is_better(typing: Any, value: Any, held: Any, operation: Any) -> Any:
    """Whether a further value is the extreme of itself and what is held so far."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        new, old, _ = arguments
        sign = _COMPARISONS[operation.instance_class]
        if isinstance(value, types.Float):
            return builder.fcmp_ordered(sign, new, old)
        compare = builder.icmp_signed if value.signed else builder.icmp_unsigned
        return compare(sign, new, old)

    return types.boolean(value, value, operation), build
