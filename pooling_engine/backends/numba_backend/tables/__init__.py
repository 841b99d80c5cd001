"""Per-plan tables of the compiled kernels; plain Python."""
