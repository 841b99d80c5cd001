"""The GPU backend beside PyTorch and CuPy; needs an NVIDIA GPU."""
