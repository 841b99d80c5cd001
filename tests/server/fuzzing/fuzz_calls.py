"""Fuzzer of whole calls, on requests that Atheris and `mutation` change.

Run by `make fuzz`, with the arguments of `tests.wire.fuzz_parsing`. The seeds are the committed
corpus. Memory is limited, so that a request that allocates more than its limits permit fails.
"""

from __future__ import annotations

import random
import resource
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["pooling_engine", "pooling_server", "pooling_wire"],
    exclude=["pooling_wire.v1"],
):
    from tests.server.fuzzing import calls

from google.protobuf.json_format import ParseError
from google.protobuf.message import DecodeError

from tests.server.fuzzing.corpus import read
from tests.server.fuzzing.mutation import mutated, mutated_json

SPARE_BYTES = 512 << 20  # for the fuzzer and one call


def mutate(data: bytes, most_bytes: int, seed: int) -> bytes:
    """Return a changed case: a changed message or, often, changed bytes."""
    rng = random.Random(seed)
    kind = calls.KINDS[data[0] % len(calls.KINDS)] if data else None
    if kind is not None and kind.message is not None and rng.random() < 0.6:
        try:
            if kind.is_json:
                changed = mutated_json(data[1:], kind.message, rng)
            else:
                changed = mutated(kind.message.FromString(data[1:]), rng).SerializeToString()
            if len(changed) < most_bytes:
                return data[:1] + changed
        except (DecodeError, ParseError, ValueError, RecursionError):  # `data` is no such message
            pass
    found: bytes = atheris.Mutate(data, most_bytes)
    return found


def limit_memory() -> None:
    """Let the process allocate `SPARE_BYTES` more than it has."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE_BYTES, resource.RLIM_INFINITY))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, case in read().items():
        (folder / name).write_bytes(case)
    limit_memory()
    arguments = [*sys.argv, f"-max_len={calls.MOST_BYTES}", "-timeout=10"]
    atheris.Setup(arguments, calls.check, custom_mutator=mutate)
    atheris.Fuzz()
