"""Transfers of host arrays to the GPU and back."""
