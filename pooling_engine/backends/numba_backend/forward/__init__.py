"""Compiled kernels of the forward pass."""
