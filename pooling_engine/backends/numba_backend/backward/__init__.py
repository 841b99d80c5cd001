"""Compiled kernels of the backward pass."""
