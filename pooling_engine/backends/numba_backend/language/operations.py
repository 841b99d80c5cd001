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


_COMPARISONS = {Larger: ">", Smaller: "<"}


def _is_better(builder: Any, type_: Any, operation: Any, new: Any, old: Any, flags: Any) -> Any:
    sign = _COMPARISONS[operation.instance_class]
    if isinstance(type_, types.Float):
        return builder.fcmp_ordered(sign, new, old, flags=flags)
    compare = builder.icmp_signed if type_.signed else builder.icmp_unsigned
    return compare(sign, new, old)


def _combination(flags: tuple[str, ...]) -> Any:
    """An intrinsic that makes one value of a further one and what is held so far."""

    @intrinsic
    def combined(typing: Any, value: Any, held: Any, operation: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            new, old, _ = arguments
            if operation.instance_class is Sum:
                return builder.fadd(new, old)
            is_new = _is_better(builder, value, operation, new, old, flags)
            return builder.select(is_new, new, old, flags=flags)

        return value(value, value, operation), build

    return combined


combine = _combination(())
# Where no NaNs are and either of two zeros will do, the compiler may change the order of extremes,
# and so spread one window over the lanes of a vector; it does not change that of sums.
combine_in_any_order = _combination(("nnan", "nsz"))


@intrinsic
def is_better(typing: Any, value: Any, held: Any, operation: Any) -> Any:
    """Whether a further value is the extreme of itself and what is held so far."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        new, old, _ = arguments
        return _is_better(builder, value, operation, new, old, ())

    return types.boolean(value, value, operation), build


@intrinsic
def pick(typing: Any, is_new: Any, value: Any, held: Any) -> Any:
    """The value or what is held, without a branch."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return value(types.boolean, value, value), build
