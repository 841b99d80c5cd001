"""Calls: the checked arguments of `forward` and `backward`."""

from pooling_engine.calls.arrays import arrays_of
from pooling_engine.calls.call import ArraySpec, BackwardCall, ForwardCall
from pooling_engine.calls.checks import as_tensor, check_out

__all__ = ["ArraySpec", "BackwardCall", "ForwardCall", "arrays_of", "as_tensor", "check_out"]
