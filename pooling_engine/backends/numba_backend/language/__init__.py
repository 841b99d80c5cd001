"""Building blocks of compiled kernels: decorators, pointers, elements, axes; see README.md."""
