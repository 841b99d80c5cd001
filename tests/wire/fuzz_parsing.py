"""Fuzzer that compares the parser with the generated classes, on bytes that Atheris generates.

Run by `make fuzz`. The first argument is the folder of the corpus; the others go to libFuzzer. The
seeds are real messages, and two of them in a row, which protobuf merges. The first byte of each
case selects the message type.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(
    include=["pooling_wire.payloads.parsing", "pooling_wire.payloads.tensors"]
):
    from pooling_wire.payloads import parsing

from tests.wire.messages import TYPES, assert_parsed_as_generated


def run(data: bytes) -> None:
    """Check one case."""
    if data:
        assert_parsed_as_generated(TYPES[data[0] % len(TYPES)], data[1:])


def seeds() -> Iterator[bytes]:
    """Yield a case for each message type, with all fields set."""
    for number, type_ in enumerate(TYPES):
        data = filled(type_()).SerializeToString()
        yield bytes([number]) + data
        yield bytes([number]) + data + data


def filled(message: Any) -> Any:
    """Return the message with all fields set; of a oneof, the last one."""
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            value["fact"] = "1"
        elif field.message_type is not None:
            filled(value.add() if hasattr(value, "add") else value).SetInParent()
        elif hasattr(value, "append"):
            value.append(1)
        else:
            setattr(message, field.name, {bytes: b"abcd", str: "text"}.get(type(value), 1))
    return message


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()):
        (folder / f"seed-{number}").write_bytes(seed)
    parsing.WHOLE_BELOW_BYTES = 0  # otherwise the generated classes would parse small messages
    atheris.Setup(sys.argv, run)
    atheris.Fuzz()
