"""Servers on the fake CuPy, and calls to them."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

from pooling_client import PoolingClient
from pooling_engine import PoolSpec, forward
from tests.support import cases, oracle
from tests.support.processes import process
from tests.support.waiting import wait_until

FAKES = Path(__file__).parent / "fakes"
ROOT = Path(__file__).parents[2]
SPEC = PoolSpec("max", 2)


def server_process(
    *flags: str, fault: Path, **environment: str
) -> AbstractContextManager[tuple[subprocess.Popen[str], str]]:
    """Start a server process on the fake CuPy; `fault` is the file of the fixture."""
    paths = os.pathsep.join([str(FAKES), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return process(
        *("--backend", "cupy", "--no-warm-up", "--listen", "127.0.0.1:0", *flags),
        PYTHONPATH=paths,
        FAKE_CUPY_FAULT=str(fault),
        CUPY_CACHE_DIR=str(fault.parent),
        **environment,
    )


def address_of(banner: str) -> str:
    found = re.search(r"listening on (\S+:\d+)", banner)
    assert found, banner
    return found[1]


def assert_answers(client: PoolingClient) -> None:
    x = cases.normal((2, 3, 8, 8))
    oracle.assert_same_bits(
        client.forward(x, SPEC).output, forward(x, SPEC, backend="numpy").output
    )


def devices_at(address: str) -> set[tuple[str, ...]]:
    """Return the devices of all workers, asked over many connections."""
    with PoolingClient(address, connections=24) as client:
        return {client.info().backends[0].devices for _ in range(24)}


def wait_for_devices(address: str, devices: set[tuple[str, ...]]) -> None:
    """Wait until a worker on each of these devices answers."""
    wait_until(lambda: devices_at(address) == devices)
