"""The Numba backend: max, min, average and sum of floats, in compiled kernels.

The package has two kinds of code:

- Plain Python: `backend.py` runs calls, `dispatch.py` chooses their kernels, `library.py` compiles
  kernels, `tables/` computes per-plan arrays.
- Compiled Python: `forward/` and `backward/` contain the kernels, `language/` their building
  blocks, explained in `language/README.md`.

`language/arguments.py` defines the records that pass from one side to the other.

A kernel computes a run of *tiles*: outputs (or, for most gradients, input positions) of one plane
that fit in cache. Spatial axes are reduced one after the other: the first from the tensor, the
others from scratch in cache. Windows are numbers in tables, so that one compiled kernel serves
every window, rank and layout; only the element types are compiled in. Operations have the order
of the NumPy backend, so that results are bit-identical.
"""
