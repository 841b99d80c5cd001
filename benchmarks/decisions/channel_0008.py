"""Measure the options of gRPC channels and of the server's allocator (ADR 8).

Every variant is a separate server process and client process that differ from the first variant in
one option. Unlike `pooling serve`, these servers do not tune the allocator. Variants alternate, and
ratios are taken within a round. The second variant repeats the first and shows the noise.

    python -m benchmarks.decisions.channel_0008 --table channel-options
    python -m benchmarks.decisions.channel_0008 --table channel-allocator
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import report

MIB = 1 << 20
PAYLOADS = {  # name: float32 shape, padding, calls per round; all max, kernel 3, stride 2
    "125 KB unary": ((10, 16, 14, 14), 0, 100),
    "26 MB streamed": ((8, 64, 112, 112), 1, 5),
    "103 MB streamed": ((32, 64, 112, 112), 1, 2),
}


@dataclass(frozen=True)
class Variant:
    """Differences from the default: channel options, environment variables, kind of address."""

    client: dict[str, int] = field(default_factory=dict)
    server: dict[str, int] = field(default_factory=dict)
    client_env: dict[str, str] = field(default_factory=dict)
    server_env: dict[str, str] = field(default_factory=dict)
    is_unix: bool = False
    has_local_credentials: bool = False


def both(**options: int) -> Variant:
    """Return a variant with the same gRPC options at both ends."""
    named = {f"grpc.{name.replace('__', '.')}": value for name, value in options.items()}
    return Variant(named, named)


def malloc(threshold_mib: float, trim_mib: float) -> dict[str, str]:
    """Return variables that make glibc use its heaps for larger blocks and keep freed memory."""
    values = {"MMAP": threshold_mib, "TRIM": trim_mib}
    return {f"MALLOC_{name}_THRESHOLD_": str(int(mib * MIB)) for name, mib in values.items()}


BASE = {"unchanged": Variant(), "unchanged, again": Variant()}
TABLES = {
    "channel-options": BASE
    | {
        "window 1 MiB": both(http2__lookahead_bytes=MIB),
        "window 8 MiB": both(http2__lookahead_bytes=8 * MIB),
        "no BDP probe": both(http2__bdp_probe=0),
        "no BDP probe, window 8 MiB": both(http2__bdp_probe=0, http2__lookahead_bytes=8 * MIB),
        "frames of 1 MiB": both(http2__max_frame_size=MIB),
        "frames of 16 MiB": both(http2__max_frame_size=16 * MIB - 1),
        "write buffer 4 MiB": both(http2__write_buffer_size=4 * MIB),
        "TCP reads of 1 MiB": both(
            experimental__tcp_read_chunk_size=MIB,
            experimental__tcp_min_read_chunk_size=MIB,
            experimental__tcp_max_read_chunk_size=4 * MIB,
        ),
        "preferred frame size": both(experimental__http2__enable_preferred_frame_size=1),
        "TCP sends without a copy": both(experimental__tcp_tx_zerocopy_enabled=1),
        "Unix socket": Variant(is_unix=True),
        "Unix socket, local credentials": Variant(is_unix=True, has_local_credentials=True),
    },
    "channel-allocator": BASE
    | {
        "client: from the heap, 1 GiB kept": Variant(client_env=malloc(32, 1024)),
        "server: from the heap": Variant(server_env=malloc(32, 1 / 8)),
        "server: from the heap, 16 MiB kept": Variant(server_env=malloc(32, 16)),
        "server: from the heap, 32 MiB kept": Variant(server_env=malloc(32, 32)),
        "server: from the heap, 64 MiB kept": Variant(server_env=malloc(32, 64)),
        "server: from the heap, 256 MiB kept": Variant(server_env=malloc(32, 256)),
        "server: from the heap, 1 GiB kept": Variant(server_env=malloc(32, 1024)),
        "server: up to 8 MiB, 32 MiB kept": Variant(server_env=malloc(8, 32)),
    },
}
VARIANTS = {name: variant for table in TABLES.values() for name, variant in table.items()}


def serve(variant: Variant, address: str) -> None:
    import grpc

    from pooling_server import PoolingServer, ServerConfig
    from pooling_server.serving import app
    from pooling_server.sockets import listening

    ours = app._channel_options
    app._channel_options = lambda *given: [*ours(*given), *variant.server.items()]
    if variant.has_local_credentials:
        credentials = grpc.local_server_credentials(grpc.LocalConnectionType.UDS)
        listening._bind = lambda server, at: server.add_secure_port(at, credentials)
    config = ServerConfig(listen=address, warm_up=False, shared_memory_bytes=0)
    server = PoolingServer(config)
    server.start()
    print(server.address, flush=True)
    sys.stdin.read()
    server.stop()


def run_client(variant: Variant, address: str) -> None:
    import grpc
    import numpy as np

    from pooling_client import PoolingClient, _connection
    from pooling_engine import PoolSpec

    _connection.CHANNEL_OPTIONS += variant.client.items()
    if variant.has_local_credentials:
        credentials = grpc.local_channel_credentials(grpc.LocalConnectionType.UDS)
        grpc.insecure_channel = lambda target, options, compression=None: grpc.secure_channel(
            target, credentials, options
        )
    tensors = {
        name: np.random.default_rng(0).standard_normal(shape, np.float32)
        for name, (shape, _, _) in PAYLOADS.items()
    }
    with PoolingClient(address, timeout=120) as client:
        for line in sys.stdin:
            x, (_, padding, calls) = tensors[line.strip()], PAYLOADS[line.strip()]
            spec = PoolSpec("max", 3, 2, padding)
            taken = report.samples(lambda x=x, spec=spec: client.forward(x, spec), calls)
            print(statistics.median(taken), flush=True)


@contextlib.contextmanager
def started(role: str, name: str, address: str, env: dict[str, str]) -> Iterator[Any]:
    """Start one role of a variant in a process, and end it afterwards."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "benchmarks.decisions.channel_0008",
            "--role",
            role,
            "--variant",
            name,
            "--address",
            address,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | env,
    )
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def resident_mib(pid: int) -> dict[str, float]:
    """Return the peak and the current resident memory of a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = {name: re.search(rf"{name}:\s+(\d+)", text)[1] for name in ("VmHWM", "VmRSS")}
    return {"peak": int(found["VmHWM"]) / 1024, "now": int(found["VmRSS"]) / 1024}


def measured(table: dict[str, Variant], rounds: int) -> list[dict[str, Any]]:
    """Return the rows of all variants; the first round does not count."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="channel-"))
        clients, servers = {}, {}
        for number, (name, variant) in enumerate(table.items()):
            address = f"unix:{folder}/{number}" if variant.is_unix else "127.0.0.1:0"
            servers[name] = stack.enter_context(started("serve", name, address, variant.server_env))
        for name, server in servers.items():
            address = server.stdout.readline().strip()
            env = table[name].client_env
            clients[name] = stack.enter_context(started("client", name, address, env))

        def measure(name: str, payload: str) -> float:
            print(payload, file=clients[name].stdin, flush=True)
            return float(clients[name].stdout.readline())

        rows = []
        for payload in PAYLOADS:
            taken = report.interleaved(
                list(table), rounds + 1, lambda name, payload=payload: measure(name, payload)
            )
            base = taken["unchanged"][1:]
            for name, (_, *of_rounds) in taken.items():
                ratios = [ms / of_base for ms, of_base in zip(of_rounds, base, strict=True)]
                row = {"payload": payload, "variant": name, "ms": report.spread(of_rounds)}
                row["over_unchanged"] = report.spread(ratios)
                rows.append(row | {"server_mib": resident_mib(servers[name].pid)})
                print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", choices=TABLES, default="channel-options")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--role", choices=("serve", "client"), help=argparse.SUPPRESS)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        role = serve if arguments.role == "serve" else run_client
        role(VARIANTS[arguments.variant], arguments.address)
        return
    load_before = round(os.getloadavg()[0], 2)
    table, rounds = arguments.table, arguments.rounds
    rows = measured(TABLES[table], rounds)
    command = f"python -m benchmarks.decisions.channel_0008 --table {table} --rounds {rounds}"
    path = report.write(table, command, rows, load_before=load_before)
    print(f"wrote {path}")


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    main()
