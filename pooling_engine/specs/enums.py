"""The words that a caller may use, each the value of an enum member."""

from __future__ import annotations

from enum import StrEnum


class Mode(StrEnum):
    """What is computed over the valid taps of a window."""

    MAX = "max"
    MIN = "min"
    AVERAGE = "average"
    SUM = "sum"
    LP = "lp"


SELECTING_MODES = frozenset({Mode.MAX, Mode.MIN})  # those that have indices


class Layout(StrEnum):
    """Where the channels are: ``(N, C, D1..Dn)`` or ``(N, D1..Dn, C)``."""

    CHANNELS_FIRST = "channels_first"
    CHANNELS_LAST = "channels_last"


class NamedPadding(StrEnum):
    """Padding that follows from the size of the axis."""

    VALID = "valid"
    SAME_UPPER = "same_upper"
    SAME_LOWER = "same_lower"


class TiePolicy(StrEnum):
    """Which of several equal taps receives the gradient."""

    FIRST = "first"
    ALL = "all"
    SPLIT = "split"


class NanPolicy(StrEnum):
    """What a NaN does in maximum and minimum pooling."""

    PROPAGATE = "propagate"
    IGNORE = "ignore"
    ERROR = "error"


class DivisorRule(StrEnum):
    """What the sum of an average is divided by."""

    VALID_TAPS = "valid_taps"
    PADDED_TAPS = "padded_taps"
    OVERRIDE = "override"


class IndexFormat(StrEnum):
    """How an index names the selected tap (contract, section 4)."""

    WINDOW = "window"
    PLANE = "plane"
    TENSOR = "tensor"
