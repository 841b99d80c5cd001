"""Attackers in a process of their own, which takes no time from the callers that are measured.

    python -m benchmarks.reliability.attacking ADDRESS ATTACK

It prints "ready" once the attack has begun, continues until its stdin ends, and prints its counts.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import numpy as np

from benchmarks.reliability import connections
from benchmarks.reliability.serving import LIMIT_S
from pooling_client import ForwardCall, PoolSpec
from pooling_wire import FORWARD

Attack = Callable[[socket.socket], Iterator[None]]
PAUSE_S = 0.01  # after each turn, so that the attacker does not use all cores


def slow_reader(peer: socket.socket) -> Iterator[None]:
    """Ask for a reply of 8 MB and do not read it."""
    x = np.ones((1, 1, 128, 1024), np.float32)
    call = ForwardCall(x, PoolSpec("sum", (2, 1), 1, padding=(1000, 0), dilation=(1000, 1)))
    request = FORWARD.encode_request(call)
    headers = connections.request_headers(FORWARD.path)
    peer.sendall(connections.frame(connections.HEADERS, connections.END_HEADERS, 1, headers))
    message = b"\0" + len(request).to_bytes(4, "big") + request
    for start in range(0, len(message), 16384):
        is_last = start + 16384 >= len(message)
        flags = connections.END_STREAM if is_last else 0
        part = message[start : start + 16384]
        peer.sendall(connections.frame(connections.DATA, flags, 1, part))
        yield
    while True:
        yield


def idle(_: socket.socket) -> Iterator[None]:
    """Do nothing."""
    while True:
        yield


ATTACKS: dict[str, tuple[Attack, int]] = {  # with the number of connections
    "ping flood": (connections.ping_flood, 2),
    "rapid reset": (connections.rapid_reset, 2),
    "endless headers": (connections.endless_headers, 2),
    "gzip bombs": (connections.gzip_bombs, 2),
    "gzip bombs that are rejected": (connections.gzip_bombs, 2),
    "slow writers": (connections.slow_writer, 20),
    "half-open connections": (connections.half_open, 200),
    "slow readers": (slow_reader, 8),
    "idle connections": (idle, 10_000),
}


class Attackers:
    """Connections that repeat an attack in turn, and are opened again when the server closes one.

    Attributes:
        steps: number of steps of the attack so far.
        closed: number of connections that the server has closed.
    """

    def __init__(self, address: str, attack: Attack, count: int) -> None:
        self.steps = self.closed = 0
        self._address, self._attack = address, attack
        self._peers: list[tuple[socket.socket, Iterator[None]] | None] = [None] * count
        self._opened = ExitStack()

    def turn(self) -> None:
        """Do one step on every connection."""
        for number, pair in enumerate(self._peers):
            try:
                if pair is None:
                    pair = self._peers[number] = self._open()
                next(pair[1])
                if self._attack is not slow_reader:
                    connections.drain(pair[0])
                self.steps += 1
            except OSError:
                self.closed += 1
                if pair is not None:
                    pair[0].close()
                self._peers[number] = None

    def close(self) -> None:
        """Close all connections."""
        self._opened.close()

    def _open(self) -> tuple[socket.socket, Iterator[None]]:
        peer = self._opened.enter_context(connections.connected(self._address))
        return peer, self._attack(peer)


@contextmanager
def attacking(address: str, name: str, count: int = 0) -> Iterator[dict[str, int]]:
    """Attack meanwhile; yield a dictionary that has the counts afterwards.

    Args:
        address: the server, HOST:PORT.
        name: a key of `ATTACKS`.
        count: number of connections, in place of that of `ATTACKS`.
    """
    counts: dict[str, int] = {}
    command = [sys.executable, "-m", "benchmarks.reliability.attacking", address, name, str(count)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the attack {name} did not begin")
        yield counts
    finally:
        process.stdin.close()
        with suppress(ValueError):
            counts |= json.loads(process.stdout.readline() or "{}")
        process.wait(LIMIT_S)
        process.stdout.close()


def main() -> None:
    """Attack until stdin ends."""
    address, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    attack, default = ATTACKS[name]
    os.nice(19)  # the client that is measured may share its core
    attackers, over = Attackers(address, attack, count or default), threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    attackers.turn()
    print("ready", flush=True)
    while not over.wait(PAUSE_S if attack is not idle else 1.0):
        attackers.turn()
    print(json.dumps({"steps": attackers.steps, "closed": attackers.closed}), flush=True)
    attackers.close()


if __name__ == "__main__":
    main()
