"""Specs: the options of a pooling layer, checked and normalised."""

from pooling_engine.specs.enums import (
    DivisorRule,
    IndexFormat,
    Layout,
    Mode,
    NamedPadding,
    NanPolicy,
    TiePolicy,
)
from pooling_engine.specs.options import check_length
from pooling_engine.specs.spec import OPTION_MODES, PoolSpec, option_error
from pooling_engine.specs.window import Window

__all__ = [
    "OPTION_MODES",
    "DivisorRule",
    "IndexFormat",
    "Layout",
    "Mode",
    "NamedPadding",
    "NanPolicy",
    "PoolSpec",
    "TiePolicy",
    "Window",
    "check_length",
    "option_error",
]
