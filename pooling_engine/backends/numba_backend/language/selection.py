"""Selection of the larger or the smaller of two elements, with a rule for NaNs and for ties.

Of equal elements, the earlier one is selected; zeros of both signs are equal. `Larger` and
`Smaller` select a NaN over every number, `LargerNumber` and `SmallerNumber` a number over every
NaN; of two NaNs, the earlier one is selected. The result is always one of the two, bit for bit.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pooling_engine.backends.numba_backend.language.jit import implements
from pooling_engine.backends.numba_backend.language.vectors import Vector


class Larger(NamedTuple):
    """The larger element, or the first NaN."""


class Smaller(NamedTuple):
    """The smaller element, or the first NaN."""


class LargerOfNumbers(NamedTuple):
    """The larger element, where no element is a NaN."""


class SmallerOfNumbers(NamedTuple):
    """The smaller element, where no element is a NaN."""


class LargerNumber(NamedTuple):
    """The larger element, or a NaN if there is no number."""


class SmallerNumber(NamedTuple):
    """The smaller element, or a NaN if there is no number."""


Operation = Larger | Smaller | LargerOfNumbers | SmallerOfNumbers | LargerNumber | SmallerNumber

_LARGER, _NUMBERS = (Larger, LargerOfNumbers, LargerNumber), (LargerNumber, SmallerNumber)
_WITHOUT_NANS = LargerOfNumbers, SmallerOfNumbers


def _sign(operation: Any) -> str:
    return ">" if operation.instance_class in _LARGER else "<"


@intrinsic
def is_better(typing: Any, value: Any, best: Any, operation: Any) -> Any:
    """Return whether a later element is selected over the best so far; for vectors, a mask."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        new, old, _ = arguments
        if operation.instance_class in _WITHOUT_NANS:
            return builder.fcmp_ordered(_sign(operation), new, old)
        # If either is a NaN, the comparison is true; a NaN of the other operand makes it false.
        is_new = builder.fcmp_unordered(_sign(operation), new, old)
        other = new if operation.instance_class in _NUMBERS else old
        return builder.and_(is_new, builder.fcmp_ordered("ord", other, other))

    is_vector = isinstance(value, Vector)
    result = Vector(types.boolean, value.lanes) if is_vector else types.boolean
    return result(value, best, operation), build


@intrinsic
def better_number(typing: Any, value: Any, best: Any, operation: Any) -> Any:
    """Return the better of two numbers; which of two equal ones is undefined.

    The compiler may reorder such selections, and so spread one window over the lanes of a vector.
    """

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        new, old, _ = arguments
        flags = ("nnan", "nsz")
        is_new = builder.fcmp_ordered(_sign(operation), new, old, flags=flags)
        return builder.select(is_new, new, old, flags=flags)

    return value(value, best, operation), build


@intrinsic
def identity_of(typing: Any, value: Any, operation: Any) -> Any:
    """Return the infinity that is never better, in the type of `value`."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        is_larger = operation.instance_class in _LARGER
        return context.get_constant(value, -math.inf if is_larger else math.inf)

    return value(value, operation), build


@intrinsic
def padding_of(typing: Any, value: Any, operation: Any) -> Any:
    """Return a number or a NaN that is never better than an element, in the type of `value`."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        identity = -math.inf if operation.instance_class in _LARGER else math.inf
        is_nan = operation.instance_class in _NUMBERS
        return context.get_constant(value, math.nan if is_nan else identity)

    return value(value, operation), build


def selects_numbers(operation: Operation) -> bool:
    """Return whether a number is selected over a NaN."""
    raise NotImplementedError


@implements(selects_numbers)
def _selects_numbers(operation: Any) -> Any:
    if operation.instance_class in _NUMBERS:
        return lambda operation: True
    return lambda operation: False


def is_larger(operation: Operation) -> bool:
    """Return whether the larger of two elements is selected."""
    raise NotImplementedError


@implements(is_larger)
def _is_larger(operation: Any) -> Any:
    if operation.instance_class in _LARGER:
        return lambda operation: True
    return lambda operation: False
