"""Peak memory of a fresh client or server process during one call, above its idle memory.

The command line measures a client that sends 60 MB in one message:

    python -m benchmarks.wire.memory 127.0.0.1:50051
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.wire import servers as wire_servers
from benchmarks.wire.suite import LAYER, SMALL, STREAM, UNARY, UNARY_60, Payload
from pooling_client import PoolingClient, _limits

MIB = 1 << 20


def peak_bytes(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", text)[1])


def reset_peak(pid: int) -> int:
    """Reset the peak to the resident memory, and return that."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak_bytes(pid)


def above_idle(pid: int, client: PoolingClient, payload: Payload, stream_bytes: int) -> int:
    """Return the peak memory of a process during one call, above its idle memory.

    A small call comes first, so that one-time allocations do not count.
    """
    x = payload.tensor()
    out = np.zeros(payload.output_shape, np.float32)
    client.forward(SMALL.tensor(), SMALL.spec)
    idle = reset_peak(pid)
    _limits.STREAM_BYTES = stream_bytes
    client.forward(x, payload.spec, out=out, timeout=60)
    return peak_bytes(pid) - idle


def rows(repeats: int) -> list[dict[str, Any]]:
    """Measure every case in fresh processes."""
    cases = {
        ("server", LAYER): lambda server: server_bytes(server, LAYER, 0),
        ("server", UNARY_60): lambda server: server_bytes(server, UNARY_60, 1 << 60),
        ("client", UNARY_60): lambda server: client_bytes(server.addresses[0]),
    }
    result = []
    for (end, payload), measure in cases.items():
        peaks = []
        for _ in range(repeats):
            with wire_servers.pooling_server() as server:
                peaks.append(measure(server))
        row = {"what": "memory", "end": end, "payload": payload.name}
        row |= {"transport": STREAM if payload is LAYER else UNARY}
        row |= {"request_bytes": payload.request_bytes, "above_idle_bytes": peaks}
        print(row, flush=True)
        result.append(row)
    return result


def server_bytes(server: wire_servers.Server, payload: Payload, stream_bytes: int) -> int:
    with PoolingClient(server.addresses[0]) as client:
        return above_idle(server.pid, client, payload, stream_bytes)


def client_bytes(address: str) -> int:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.wire.memory", address],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return int(done.stdout)


if __name__ == "__main__":
    with PoolingClient(sys.argv[1]) as client:
        print(above_idle("self", client, UNARY_60, 1 << 60))
