"""The same calls on the Numba and on the NumPy backend, and values that tell them apart."""

from __future__ import annotations

from contextlib import contextmanager

import cases
import ml_dtypes
import numpy as np
import oracle

import pooling_engine
from pooling_engine import PoolingError, PoolSpec, backward, forward, threads
from pooling_engine.backends.numba_kernels import calls, geometry, targets, tiling

DTYPES = tuple(map(np.dtype, ("float16", ml_dtypes.bfloat16, "float32", "float64")))


def bits(shape, dtype, seed):
    """Anything: NaNs of every payload, infinities, the largest, the smallest, zeros."""
    unsigned = f"u{dtype.itemsize}"
    top = np.iinfo(unsigned).max
    drawn = np.random.default_rng(seed).integers(0, top, shape, unsigned, endpoint=True)
    return drawn.view(dtype)


def numbers(shape, dtype, seed):
    """Anything but NaNs."""
    drawn = bits(shape, dtype, seed)
    with np.errstate(invalid="ignore"):
        drawn[np.isnan(drawn)] = 1
    return drawn


def one_nan(shape, dtype, seed):
    """A negative NaN with a payload somewhere among numbers."""
    drawn = cases.normal(shape, dtype, seed)
    if drawn.size:
        unsigned = f"u{dtype.itemsize}"
        drawn.reshape(-1).view(unsigned)[seed % drawn.size] = np.iinfo(unsigned).max - 2
    return drawn


def tiny(shape, dtype, seed):
    """Denormal numbers of both signs, and what is just above them."""
    smallest = ml_dtypes.finfo(dtype).smallest_subnormal
    counts = np.random.default_rng(seed).integers(-9, 9, shape)
    return (counts * np.float64(smallest)).astype(dtype)


def huge(shape, dtype, seed):
    """Sums of them overflow, and those of infinities are NaNs."""
    largest = ml_dtypes.finfo(dtype).max
    palette = np.array([largest, -largest, largest, np.inf, -np.inf, 1], dtype)
    return np.random.default_rng(seed).choice(palette, shape)


def zeros(shape, dtype, seed):
    """Zeros of both signs."""
    return np.random.default_rng(seed).choice(np.array([0.0, -0.0], dtype), shape)


VALUES = {
    "normal": cases.normal,
    "ties": lambda shape, dtype, seed: cases.hard(shape, dtype, seed, has_nan=False),
    "hard": cases.hard,
    "bits": bits,
    "numbers": numbers,
    "one NaN": one_nan,
    "tiny": tiny,
    "huge": huge,
    "zeros": zeros,
}


@contextmanager
def cut(slab_bytes, thread_count):
    """Slabs of that size, shared out among threads however small they are, past the cache."""
    sizes = dict.fromkeys(CUTS, slab_bytes) | {(threads, "BYTES_PER_PART"): 1}
    if slab_bytes != geometry.SLAB_BYTES:
        sizes[calls, "STREAMED_BYTES"] = 0
    before = {(module, name): getattr(module, name) for module, name in sizes}
    count = pooling_engine.thread_count()
    _set(sizes, thread_count)
    try:
        yield
    finally:
        _set(before, count)


CUTS = tuple((module, "SLAB_BYTES") for module in (geometry, targets, tiling))
TABLES = (geometry.geometry_of, geometry.reach_of, targets.targets_of, tiling.tiling_of)


def _set(sizes, thread_count):
    for (module, name), value in sizes.items():
        setattr(module, name, value)
    for table in TABLES:
        table.cache_clear()
    if thread_count != pooling_engine.thread_count():
        pooling_engine.set_thread_count(thread_count)


def assert_same_calls(options, x, value, seed, disguise=lambda array: array):
    """Forward and backward in every way; `x` is channels first, `value` makes the gradient."""
    spec = PoolSpec(**options)
    given = disguise(cases.to_layout(options, x))
    selects = options["mode"] in ("max", "min")
    plain = assert_same(forward, given, spec)
    if plain is None:
        return
    indices = None
    if selects:
        indices = assert_same(forward, given, spec, return_indices=True).indices
    dy = disguise(value(plain.output.shape, x.dtype, seed + 1))
    for residual in residuals_of(options, given, indices, disguise):
        assert_same(backward, dy, spec, **residual)


def residuals_of(options, x, indices, disguise):
    if options["mode"] == "lp" or options.get("tie_policy", "first") != "first":
        return ({"input": x},)
    if indices is None:
        return ({"input_shape": x.shape},)
    return ({"input": x}, {"input_shape": x.shape, "indices": disguise(indices)})


def assert_same(call, *arguments, **options):
    """What both backends return, or None where both refuse."""
    ours, theirs = (
        outcome(call, *arguments, backend=backend, **options) for backend in ("numba", "numpy")
    )
    if isinstance(theirs, PoolingError):
        assert type(ours) is type(theirs)
        assert (ours.field, str(ours)) == (theirs.field, str(theirs))
        return None
    pairs = ((ours, theirs),) if call is backward else zip(ours, theirs, strict=True)
    for one, other in pairs:
        assert (one is None) == (other is None)
        if one is not None:
            oracle.assert_same_bits(one, other)
    return ours


def outcome(call, *arguments, **options):
    try:
        return call(*arguments, **options)
    except PoolingError as error:
        return error
