"""The compiled kernels of the Numba backend, one module per family of modes.

A kernel computes a run of *slabs*: what one output position of the first spatial axis needs of
one plane. Spatial axes are pooled one after the other, the first one from the tensor itself, the
others from scratch that stays in cache. Kernels take the windows as numbers (`geometry.py`), so
one compiled kernel serves every window, rank and layout; only the element types are compiled in.
Arithmetic and its order are those of the NumPy backend: the results are the same bits.
"""
