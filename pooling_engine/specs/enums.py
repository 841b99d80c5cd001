"""Enums of options; the value of each member is the string that callers pass."""

from __future__ import annotations

from enum import StrEnum


class Mode(StrEnum):
    """Operation on the valid elements of a window."""

    MAX = "max"
    MIN = "min"
    AVERAGE = "average"
    SUM = "sum"
    LP = "lp"


SELECTING_MODES = frozenset({Mode.MAX, Mode.MIN})  # modes with indices
SUMMING_MODES = (Mode.AVERAGE, Mode.SUM)


class Layout(StrEnum):
    """Position of the channel axis: ``(N, C, D1..Dn)`` or ``(N, D1..Dn, C)``."""

    CHANNELS_FIRST = "channels_first"
    CHANNELS_LAST = "channels_last"


class NamedPadding(StrEnum):
    """Padding that is derived from the size of the axis."""

    VALID = "valid"
    SAME_UPPER = "same_upper"
    SAME_LOWER = "same_lower"


class TiePolicy(StrEnum):
    """Distribution of the gradient among tied elements of a window."""

    FIRST = "first"
    ALL = "all"
    SPLIT = "split"


class NanPolicy(StrEnum):
    """Treatment of NaNs by "max" and "min"."""

    PROPAGATE = "propagate"
    IGNORE = "ignore"
    ERROR = "error"


class DivisorRule(StrEnum):
    """Divisor of an average."""

    VALID_TAPS = "valid_taps"
    PADDED_TAPS = "padded_taps"
    OVERRIDE = "override"


class IndexFormat(StrEnum):
    """Numbering of the selected elements (see `IndexFormat` in pooling.proto)."""

    WINDOW = "window"
    PLANE = "plane"
    TENSOR = "tensor"
