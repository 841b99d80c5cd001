"""Calls: the checked arguments of `forward` and `backward`."""

from pooling_engine.calls.arrays import arrays_of
from pooling_engine.calls.call import ArraySpec, BackwardCall, ForwardCall
from pooling_engine.calls.checks import as_tensor, check_out
from pooling_engine.calls.forward_all import (
    ForwardAllCall,
    check_layer_count,
    checked_layer,
    forward_all_call,
    result_prefix,
)

__all__ = [
    "ArraySpec",
    "BackwardCall",
    "ForwardAllCall",
    "ForwardCall",
    "arrays_of",
    "as_tensor",
    "check_layer_count",
    "check_out",
    "checked_layer",
    "forward_all_call",
    "result_prefix",
]
