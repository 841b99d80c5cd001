"""Enum tables: each engine name and its number on the wire, in both directions.

A name without a number, or a number without a name, fails at import.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Generic, TypeVar

import numpy as np

from pooling_engine import (
    DivisorRule,
    IndexFormat,
    InvalidSpecError,
    InvalidTensorError,
    Layout,
    Mode,
    NamedPadding,
    NanPolicy,
    TiePolicy,
    UnsupportedError,
)
from pooling_engine.dtypes import BFLOAT16
from pooling_wire.v1 import pooling_pb2 as pb

E = TypeVar("E", bound=StrEnum)


class EnumTable(Generic[E]):
    """One engine enum and its wire enum; unknown numbers are rejected."""

    def __init__(self, numbers: Mapping[E, int], names: type[E], wire: Any) -> None:
        self._numbers = dict(numbers)
        self._names = {number: name for name, number in numbers.items()}
        _assert_total(set(numbers), set(names), f"{names.__name__} names")
        _assert_total(set(self._names), set(wire.values()) - {0}, f"{wire.DESCRIPTOR.name} numbers")

    def number(self, name: E) -> Any:
        """Return the wire number of a name."""
        return self._numbers[name]

    def name(self, number: int, field: str, default: E | None = None) -> E:
        """Return the name of a wire number, or `default` for 0.

        Raises:
            InvalidSpecError: the number is unknown, or 0 without a default.
        """
        if number == 0 and default is not None:
            return default
        if number not in self._names:
            legal = ", ".join(f"{known} ({name})" for known, name in sorted(self._names.items()))
            said = "not set" if number == 0 else f"{number}, which is unknown"
            raise InvalidSpecError(f"{field} is {said}; legal: {legal}", field=field)
        return self._names[number]


def _assert_total(known: set[Any], all_: set[Any], what: str) -> None:
    if known != all_:
        raise AssertionError(f"the enum table and the {what} differ: {known ^ all_}")


MODES = EnumTable(
    {
        Mode.MAX: pb.MODE_MAX,
        Mode.MIN: pb.MODE_MIN,
        Mode.AVERAGE: pb.MODE_AVERAGE,
        Mode.SUM: pb.MODE_SUM,
        Mode.LP: pb.MODE_LP,
    },
    Mode,
    pb.Mode,
)
LAYOUTS = EnumTable(
    {
        Layout.CHANNELS_FIRST: pb.LAYOUT_CHANNELS_FIRST,
        Layout.CHANNELS_LAST: pb.LAYOUT_CHANNELS_LAST,
    },
    Layout,
    pb.Layout,
)
NAMED_PADDINGS = EnumTable(
    {
        NamedPadding.VALID: pb.NAMED_PADDING_VALID,
        NamedPadding.SAME_UPPER: pb.NAMED_PADDING_SAME_UPPER,
        NamedPadding.SAME_LOWER: pb.NAMED_PADDING_SAME_LOWER,
    },
    NamedPadding,
    pb.NamedPadding,
)
TIE_POLICIES = EnumTable(
    {
        TiePolicy.FIRST: pb.TIE_POLICY_FIRST,
        TiePolicy.ALL: pb.TIE_POLICY_ALL,
        TiePolicy.SPLIT: pb.TIE_POLICY_SPLIT,
    },
    TiePolicy,
    pb.TiePolicy,
)
NAN_POLICIES = EnumTable(
    {
        NanPolicy.PROPAGATE: pb.NAN_POLICY_PROPAGATE,
        NanPolicy.IGNORE: pb.NAN_POLICY_IGNORE,
        NanPolicy.ERROR: pb.NAN_POLICY_ERROR,
    },
    NanPolicy,
    pb.NanPolicy,
)
INDEX_FORMATS = EnumTable(
    {
        IndexFormat.WINDOW: pb.INDEX_FORMAT_WINDOW,
        IndexFormat.PLANE: pb.INDEX_FORMAT_PLANE,
        IndexFormat.TENSOR: pb.INDEX_FORMAT_TENSOR,
    },
    IndexFormat,
    pb.IndexFormat,
)

DIVISOR_RULES = EnumTable(
    {
        DivisorRule.VALID_TAPS: pb.DIVISOR_RULE_VALID_TAPS,
        DivisorRule.PADDED_TAPS: pb.DIVISOR_RULE_PADDED_TAPS,
        DivisorRule.OVERRIDE: pb.DIVISOR_RULE_OVERRIDE,
    },
    DivisorRule,
    pb.DivisorRule,
)

# By NumPy's name of the type; NumPy knows bfloat16 only if ml_dtypes is installed.
_ELEMENT_TYPES: dict[str, int] = {
    "float16": pb.ELEMENT_TYPE_FLOAT16,
    "bfloat16": pb.ELEMENT_TYPE_BFLOAT16,
    "float32": pb.ELEMENT_TYPE_FLOAT32,
    "float64": pb.ELEMENT_TYPE_FLOAT64,
    "int8": pb.ELEMENT_TYPE_INT8,
    "uint8": pb.ELEMENT_TYPE_UINT8,
    "int16": pb.ELEMENT_TYPE_INT16,
    "uint16": pb.ELEMENT_TYPE_UINT16,
    "int32": pb.ELEMENT_TYPE_INT32,
    "uint32": pb.ELEMENT_TYPE_UINT32,
    "int64": pb.ELEMENT_TYPE_INT64,
}
_ELEMENT_NAMES = {number: name for name, number in _ELEMENT_TYPES.items()}
_assert_total(set(_ELEMENT_NAMES), set(pb.ElementType.values()) - {0}, "ElementType numbers")


def element_type_number(dtype: np.dtype[Any]) -> Any:
    """Return the wire number of a NumPy type.

    Raises:
        InvalidTensorError: the contract has no such element type.
    """
    try:
        return _ELEMENT_TYPES[dtype.name]
    except KeyError:
        raise InvalidTensorError(
            f"the element type is {dtype.name}; it must be one of {', '.join(_ELEMENT_TYPES)}"
        ) from None


def element_dtype(number: int, field: str) -> np.dtype[Any]:
    """Return the NumPy type of a wire number, little-endian as on the wire.

    Raises:
        InvalidTensorError: the number is 0 or unknown.
        UnsupportedError: the type is bfloat16 and ml_dtypes is not installed.
    """
    if number not in _ELEMENT_NAMES:
        legal = ", ".join(f"{known} ({name})" for known, name in sorted(_ELEMENT_NAMES.items()))
        said = "not set" if number == 0 else f"{number}, which is unknown"
        raise InvalidTensorError(f"{field} is {said}; legal: {legal}", field=field)
    name = _ELEMENT_NAMES[number]
    if name == "bfloat16":
        if BFLOAT16 is None:
            raise UnsupportedError(
                f"{field} is bfloat16, which needs ml_dtypes: "
                "pip install 'pooling-service[bfloat16]'",
                field=field,
            )
        return BFLOAT16
    return np.dtype(np.dtype(name).newbyteorder("<").str)  # .str makes it native if it is
