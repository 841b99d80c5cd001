"""Compare encoding a request by one join with encoding it by the generated classes.

Both write the same message; the result is the evidence for ADR 3.

    python -m benchmarks.decisions.encode_0003
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from benchmarks import report
from pooling_engine import ForwardCall, PoolSpec
from pooling_wire import FORWARD
from pooling_wire.messages.specs import encode_spec
from pooling_wire.v1 import pooling_pb2 as pb

SHAPES = {"125 KB": (10, 16, 14, 14), "2.3 MB": (1, 3, 480, 400), "26 MB": (32, 64, 56, 56)}
SPEC = PoolSpec("max", kernel=3, stride=2)
ROUNDS = 21


def by_join(x: np.ndarray) -> bytes:
    return FORWARD.encode_request(ForwardCall(x, SPEC))


def by_generated_classes(x: np.ndarray) -> bytes:
    tensor = pb.Tensor(element_type=pb.ELEMENT_TYPE_FLOAT32, shape=x.shape, data=x.tobytes())
    return pb.ForwardRequest(spec=encode_spec(SPEC, 2), input=tensor).SerializeToString()


def milliseconds(encode: Callable[[np.ndarray], bytes], x: np.ndarray) -> float:
    start = time.perf_counter()
    encode(x)
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    rows = []
    for payload, shape in SHAPES.items():
        x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        if pb.ForwardRequest.FromString(by_join(x)) != pb.ForwardRequest.FromString(
            by_generated_classes(x)
        ):
            raise SystemExit("the two encoders disagree")
        pairs = [
            (milliseconds(by_join, x), milliseconds(by_generated_classes, x)) for _ in range(ROUNDS)
        ]
        joined, generated = zip(*pairs, strict=True)
        row = {
            "payload": payload,
            "join_ms": report.spread(joined),
            "generated_ms": report.spread(generated),
            "times_faster": report.spread(g / j for j, g in pairs),
        }
        print(row, flush=True)
        rows.append(row)
    print(f"wrote {report.write('encode', 'python -m benchmarks.decisions.encode_0003', rows)}")


if __name__ == "__main__":
    main()
