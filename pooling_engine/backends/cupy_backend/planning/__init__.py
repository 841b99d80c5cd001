"""Launch planning for CUDA kernels; plain Python, needs no GPU."""
