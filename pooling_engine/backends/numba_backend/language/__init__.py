"""Building blocks of compiled kernels: decorators, pointers, element types, vector operations."""
