"""Payloads and transports of the wire benchmark."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pooling_engine import PoolSpec
from pooling_engine.plans import make_plan


class Payload(NamedTuple):
    """Float32 tensor that is pooled by 3x3 windows with stride 2.

    Attributes:
        calls: number of calls per round.
    """

    name: str
    shape: tuple[int, ...]
    padding: int
    calls: int

    @property
    def spec(self) -> PoolSpec:
        return PoolSpec("max", kernel=3, stride=2, padding=self.padding)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return make_plan(self.spec, self.shape, np.dtype(np.float32)).output_shape

    @property
    def request_bytes(self) -> int:
        return 4 * int(np.prod(self.shape))

    @property
    def reply_bytes(self) -> int:
        return 4 * int(np.prod(self.output_shape))

    def tensor(self) -> np.ndarray:
        return np.random.default_rng(0).standard_normal(self.shape, dtype=np.float32)


PAYLOADS = [
    Payload("1 KB", (1, 1, 16, 16), 1, 100),
    Payload("12 KB", (1, 3, 32, 32), 1, 100),
    Payload("125 KB", (10, 16, 14, 14), 0, 100),
    Payload("1 MB", (4, 64, 32, 32), 1, 20),
    Payload("12 MB", (15, 64, 56, 56), 1, 3),
    Payload("103 MB", (32, 64, 112, 112), 1, 1),
    Payload("400 MB", (125, 64, 112, 112), 1, 1),
]
SMALL, SEED, LAYER = PAYLOADS[1], PAYLOADS[2], PAYLOADS[5]
UNARY_60 = Payload("60 MB", (19, 64, 112, 112), 1, 1)
UNARY_BYTES = 256 << 20  # the largest message that our server accepts
FLOATS_BYTES = 2 << 20  # a list of Python floats is too slow for more
CONCURRENCIES = (1, 4, 16)

ECHO, ECHO_STREAM = "echo server (unary)", "echo server (stream)"
FLIGHT = "Arrow Flight (echo)"
NAIVE, FLOATS = "naive gRPC service", "naive gRPC service (repeated float)"
UNARY, STREAM = "ours (unary)", "ours (stream)"
SHARED_STREAM = "ours (shared stream)"
SHARED, SHARED_COPIED = "ours (shared memory)", "ours (shared memory, ordinary array)"
LOCAL = "engine in process"
TRANSPORTS = (
    ECHO,
    ECHO_STREAM,
    FLIGHT,
    NAIVE,
    FLOATS,
    UNARY,
    SHARED_STREAM,
    STREAM,
    SHARED,
    SHARED_COPIED,
    LOCAL,
)
COPY_IN, COPY_OUT = "copy of the input", "copy of the output"
