"""Benchmark of the GPU backend beside PyTorch and a device copy; needs an NVIDIA GPU."""
