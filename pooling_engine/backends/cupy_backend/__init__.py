"""What the CuPy backend needs to know of its kernels, none of which needs CuPy or a card."""
