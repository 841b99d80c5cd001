"""Fuzzer of requests in JSON, on texts that Atheris generates.

Run by `make fuzz`, with the arguments of `tests.wire.fuzz_parsing`. The seeds are the requests of
the test vectors. The first byte of each case selects the method.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["google.protobuf.json_format", "pooling_server.http.json_messages"]
):
    from google.protobuf import json_format

    from pooling_server.http.json_messages import request_bytes

import pooling_wire
from pooling_engine import InvalidSpecError, PoolingError

VECTORS = Path(__file__).parents[1] / "vectors"
DECODERS = {method.name: method.decode_request for method in pooling_wire.METHODS}
DECODERS |= {"GetPlan": pooling_wire.decode_plan_request}
NAMES = tuple(DECODERS)


def run(data: bytes) -> None:
    """Check one case: it is rejected in one line, or means what its bytes mean."""
    if not data:
        return
    name, text = NAMES[data[0] % len(NAMES)], data[1:]
    encoded, rejection = None, None
    try:
        encoded = request_bytes(name, text)
    except InvalidSpecError as error:
        rejection = error
    if encoded is None:
        assert rejection is not None
        assert len(str(rejection).splitlines()) == 1
        pooling_wire.encode_error(rejection)
        return
    message = pooling_wire.message_class(f"{name}Request").FromString(encoded)
    assert request_bytes(name, json_format.MessageToJson(message).encode()) == encoded
    try:
        DECODERS[name](encoded)
    except PoolingError as error:
        pooling_wire.encode_error(error)


def seeds() -> list[bytes]:
    """Return the small requests of the vectors, and one for each other method."""
    found = [b'\2{"spec": {"mode": "MODE_MAX"}, "inputShape": [1, "1", 4, 4]}']
    for path in VECTORS.glob("*_values.json"):
        for vector in json.loads(path.read_text())["vectors"]:
            text = json.dumps(vector["request"]).encode()
            found.append(bytes([NAMES.index(vector["method"])]) + text)
    return found


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()):
        (folder / f"seed-{number}").write_bytes(seed)
    atheris.Setup(sys.argv, run)
    atheris.Fuzz()
