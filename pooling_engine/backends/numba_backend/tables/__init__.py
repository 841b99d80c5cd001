"""Per-plan lookup tables of the compiled kernels; plain Python."""
