"""Normalisation and checks of single options; errors name the option."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Sequence, Sized
from enum import StrEnum
from numbers import Real
from typing import Any, TypeVar

import numpy as np

from pooling_engine.errors import InvalidSpecError
from pooling_engine.specs.enums import NamedPadding

MAX_SPATIAL_AXES = 6
MAX_SIZE = 2**31 - 1  # of a kernel, stride, dilation, padding; keeps positions within 64 bits

E = TypeVar("E", bound=StrEnum)


def choice(name: str, enum: type[E], value: str) -> E:
    """Return the enum member with that value."""
    try:
        return enum(value)
    except ValueError:
        legal = ", ".join(f'"{member}"' for member in enum)
        raise InvalidSpecError(
            f"{name} is {value!r}; it must be one of {legal}", field=name
        ) from None


def flag(name: str, value: bool) -> bool:
    """Return True or False, also for NumPy's; other truthy or falsy values are rejected."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise InvalidSpecError(f"{name} is {value!r}; it must be True or False", field=name)


def number(name: str, value: Any) -> float:
    """Return a real number as a float."""
    if isinstance(value, Real) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # an integer beyond the range of float
            return float(value)
    raise InvalidSpecError(f"{name} is {value!r}; it must be a number", field=name)


def optional(check: Callable[[str, Any], Any], name: str, value: Any) -> Any:
    """Return None for None, and else ``check(name, value)``."""
    return None if value is None else check(name, value)


def _size(name: str, value: Any, least: int) -> int:
    """Return an integer from `least` to `MAX_SIZE`."""
    try:
        size = operator.index(value)
    except TypeError:
        size = -1
    if isinstance(value, bool) or not least <= size <= MAX_SIZE:
        raise InvalidSpecError(
            f"{name} is {value!r}; it must be an integer from {least} to {MAX_SIZE}", field=name
        )
    return size


def sizes(name: str, value: Any) -> Any:
    """Return one size for all axes, or a tuple of one size per axis."""
    if not _is_sequence(value):
        return _size(name, value, 1)
    check_length(name, value)
    return tuple(_size(f"{name}[{axis}]", size, 1) for axis, size in enumerate(value))


def paddings(value: Any) -> Any:
    """Return a named padding, one size for all axes, or a tuple of one pair per axis."""
    if isinstance(value, str):
        return choice("padding", NamedPadding, value)
    if not _is_sequence(value):
        return _size("padding", value, 0)
    check_length("padding", value)
    pairs = []
    for axis, item in enumerate(value):
        name = f"padding[{axis}]"
        pair = tuple(item) if _is_sequence(item) else (item, item)
        if len(pair) != 2:
            raise InvalidSpecError(
                f"{name} is {item!r}; it must be a size or a pair (before, after)", field=name
            )
        pairs.append((_size(f"{name}[0]", pair[0], 0), _size(f"{name}[1]", pair[1], 0)))
    return tuple(pairs)


def _is_sequence(value: Any) -> bool:
    is_array = isinstance(value, np.ndarray) and value.ndim > 0
    return is_array or (isinstance(value, Sequence) and not isinstance(value, str | bytes))


def check_length(name: str, value: Sized) -> None:
    """Check the number of sizes or windows, one per spatial axis.

    Raises:
        InvalidSpecError: there are none, or too many.
    """
    if not 1 <= len(value) <= MAX_SPATIAL_AXES:
        raise InvalidSpecError(
            f"{name} has {len(value)} sizes; it must have 1 to {MAX_SPATIAL_AXES}",
            field=name,
        )
