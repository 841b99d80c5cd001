"""Compare decoding a request as views with decoding it by the generated class (ADR 5).

The result also shows the size below which views are slower. `encode_0003` measures encoding.

    python -m benchmarks.decisions.codec_0005
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from benchmarks import report
from pooling_engine import ForwardCall, PoolSpec
from pooling_wire import FORWARD
from pooling_wire.payloads import parsing
from pooling_wire.v1 import pooling_pb2 as pb

SHAPES = {
    "12 KB": (1, 3, 32, 32),
    "125 KB": (10, 16, 14, 14),
    "251 KB": (20, 16, 14, 14),
    "26 MB": (32, 64, 56, 56),
    "103 MB": (128, 64, 56, 56),
}
SPEC = PoolSpec("max", kernel=3, stride=2)
ROUNDS = 21


def to_views(data: bytes) -> object:
    return parsing.parse(pb.ForwardRequest, data).payloads["input"]


def by_generated_class(data: bytes) -> object:
    return pb.ForwardRequest.FromString(data).input.data


def milliseconds(decode: Callable[[bytes], object], data: bytes) -> float:
    """Return the time of one call; the mean of many if one call is too short to time."""
    calls = max(1, 3_000_000 // len(data))
    start = time.perf_counter()
    for _ in range(calls):
        decode(data)
    return (time.perf_counter() - start) / calls * 1e3


def main() -> None:
    parsing.WHOLE_BELOW_BYTES = 0
    rows = []
    for payload, shape in SHAPES.items():
        x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        data = FORWARD.encode_request(ForwardCall(x, SPEC))
        if to_views(data) != by_generated_class(data):
            raise SystemExit("the two decoders disagree")
        pairs = [
            (milliseconds(to_views, data), milliseconds(by_generated_class, data))
            for _ in range(ROUNDS)
        ]
        views, generated = zip(*pairs, strict=True)
        row = {
            "payload": payload,
            "views_ms": report.spread(views),
            "generated_ms": report.spread(generated),
            "times_faster": report.spread(g / v for v, g in pairs),
        }
        print(row, flush=True)
        rows.append(row)
    print(f"wrote {report.write('codec', 'python -m benchmarks.decisions.codec_0005', rows)}")


if __name__ == "__main__":
    main()
