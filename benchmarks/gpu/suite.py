"""Layers of the GPU benchmark: those of the CPU benchmark in larger batches."""

from __future__ import annotations

import math

from benchmarks.engine import suite as engine_suite
from benchmarks.engine.suite import Layer
from pooling_engine.dtypes import BFLOAT16

DTYPES = ("float32", "float16", *(() if BFLOAT16 is None else ("bfloat16",)))
BATCHES = (256, 128, 64, 32)
MOST_BYTES = 1 << 30  # of a float32 input
LARGE = 64 * 10**6  # bytes of input: bandwidth goals apply above this
SMALL = 8 * 10**6  # bytes of input: moving fewer takes less time than a launch


def in_batch(layer: Layer, batch: int) -> Layer:
    """Return the layer for a batch size."""
    return layer._replace(shape=(batch, *layer.shape[1:]))


def largest(layer: Layer) -> Layer:
    """Return the layer in the largest batch of at most `MOST_BYTES`."""
    image = 4 * math.prod(layer.shape[1:])
    return in_batch(layer, next(each for each in BATCHES if each * image <= MOST_BYTES))


_SMALL = tuple(
    in_batch(layer, BATCHES[-1]) for layer in engine_suite.LAYERS if layer.network == "LeNet"
)
LAYERS = (*_SMALL, *map(largest, engine_suite.LAYERS))
