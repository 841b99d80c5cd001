"""Calls at a rate, from a process of its own that takes little time for each.

    python -m benchmarks.reliability.sending < SETTINGS.json

It writes HTTP/2 frames that were built beforehand and reads no more of a reply than its status, so
that it can offer several times what a server computes. It never retries, and it sends a call when
it is due, regardless of the replies. A call that the limit of streams holds back counts from the
moment it was due.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path

import numpy as np

from benchmarks.reliability import connections
from benchmarks.reliability.serving import LIMIT_S
from pooling_wire import FORWARD

OK, RESOURCE_EXHAUSTED, UNAVAILABLE = 0, 8, 14
FRAME_BYTES = 16384
_STATUS = re.compile(rb"grpc-status(?:\x01(\d)|\x02(\d\d))")
_HEADER_TABLE_SIZE, _INITIAL_WINDOW, _MAX_STREAMS = 1, 4, 3
_WINDOW = (1 << 31) - 1
_REFILL_BYTES = 256 << 20  # of the window in which the server sends replies
_ACK = 1


@dataclass
class Sent:
    """Outcome of calls at a rate.

    Attributes:
        rate: calls per second that were offered.
        seconds: time from the first call until the last reply.
        answered_ms: time of each answered call, from the moment it was due.
        rejected_ms: time of each call with RESOURCE_EXHAUSTED.
        other: other failures, by status.
        most_late_ms: longest delay of a call that the sender caused.
        sender_share: share of one core that the sender used.
    """

    rate: float = 0.0
    seconds: float = 0.0
    answered_ms: list[float] = field(default_factory=list)
    rejected_ms: list[float] = field(default_factory=list)
    other: dict[str, int] = field(default_factory=dict)
    most_late_ms: float = 0.0
    sender_share: float = 0.0

    @property
    def goodput(self) -> float:
        """Answered calls per second."""
        return len(self.answered_ms) / self.seconds if self.seconds else 0.0


class _Call:
    """One call: when it was due, and what is left to send of it."""

    __slots__ = ("due", "rest", "window")

    def __init__(self, due: float, window: int) -> None:
        self.due, self.window = due, window
        self.rest: memoryview | None = None


class _Connection:
    """One connection: flow control, and the calls on it."""

    def __init__(self, address: str, message: bytes, sent: Sent) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=LIMIT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._message, self._sent = memoryview(message), sent
        more = ((b"grpc-timeout", b"40S"),)
        self._headers = connections.request_headers(FORWARD.path, *more)
        self._ids, self._calls = count(1, 2), dict[int, _Call]()
        self._waiting: deque[float] = deque()  # calls that the limit of streams holds back
        self._blocked: deque[int] = deque()  # calls that wait for a window
        self._window, self._stream_window, self._most_streams = 65535, 65535, 100
        self._received, self._unread = bytearray(), 0
        settings = struct.pack(">HIHI", _HEADER_TABLE_SIZE, 0, _INITIAL_WINDOW, _WINDOW)
        self._out = bytearray(
            connections.PREFACE
            + connections.frame(connections.SETTINGS, 0, 0, settings)
            + connections.frame(connections.WINDOW_UPDATE, 0, 0, struct.pack(">I", _WINDOW - 65535))
        )
        self.flush()
        self.socket.setblocking(False)

    @property
    def is_idle(self) -> bool:
        """True if no call waits for a reply."""
        return not self._calls and not self._waiting

    @property
    def in_flight(self) -> int:
        """Number of calls without a reply."""
        return len(self._calls) + len(self._waiting)

    @property
    def has_output(self) -> bool:
        """True if the socket could not take all bytes."""
        return bool(self._out)

    def call(self, due: float) -> None:
        """Send a call, or hold it back until the server takes another stream."""
        if len(self._calls) >= self._most_streams:
            self._waiting.append(due)
            return
        stream = next(self._ids)
        self._calls[stream] = call = _Call(due, self._stream_window)
        self._out += connections.frame(
            connections.HEADERS, connections.END_HEADERS, stream, self._headers
        )
        call.rest = self._message
        if not self._send_data(stream, call):
            self._blocked.append(stream)

    def flush(self) -> None:
        """Write what the socket takes."""
        if self._out:
            with suppress(BlockingIOError):
                del self._out[: self.socket.send(self._out)]

    def read(self) -> None:
        """Read what has arrived."""
        try:
            data = self.socket.recv(1 << 20)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionError("closed by the server")
        self._received += data
        buffer, start, end = self._received, 0, len(self._received)
        while end - start >= 9:
            size = int.from_bytes(buffer[start : start + 3], "big")
            if end - start < 9 + size:
                break
            kind, flags = buffer[start + 3], buffer[start + 4]
            stream = int.from_bytes(buffer[start + 5 : start + 9], "big")
            self._frame(kind, flags, stream, start + 9, size)
            start += 9 + size
        del buffer[:start]

    def _frame(self, kind: int, flags: int, stream: int, start: int, size: int) -> None:
        if kind == connections.DATA:
            self._unread += size
            if self._unread > _REFILL_BYTES:
                self._window_update(self._unread)
                self._unread = 0
            return
        payload = bytes(self._received[start : start + size])
        if kind == connections.HEADERS:
            if flags & connections.END_STREAM:
                found = _STATUS.search(payload)
                self._end(stream, int(found[1] or found[2]) if found else -1)
        elif kind == connections.RST_STREAM:
            self._end(stream, -2)
        elif kind == connections.WINDOW_UPDATE:
            self._widen(stream, int.from_bytes(payload, "big"))
        elif kind == connections.SETTINGS and not flags & _ACK:
            self._settings(payload)
        elif kind == connections.PING and not flags & _ACK:
            self._out += connections.frame(connections.PING, _ACK, 0, payload)
        elif kind == connections.GOAWAY:
            raise ConnectionError(f"the server ends the connection: {payload[8:]!r}")

    def _window_update(self, size: int) -> None:
        payload = struct.pack(">I", size)
        self._out += connections.frame(connections.WINDOW_UPDATE, 0, 0, payload)

    def _settings(self, payload: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", payload):
            if name == _INITIAL_WINDOW:
                for call in self._calls.values():
                    call.window += value - self._stream_window
                self._stream_window = value
            elif name == _MAX_STREAMS:
                self._most_streams = value
        self._out += connections.frame(connections.SETTINGS, _ACK, 0)
        self._unblock()

    def _widen(self, stream: int, size: int) -> None:
        if not stream:
            self._window += size
        elif stream in self._calls:
            self._calls[stream].window += size
        self._unblock()

    def _unblock(self) -> None:
        for _ in range(len(self._blocked)):
            stream = self._blocked.popleft()
            call = self._calls.get(stream)
            if call is not None and not self._send_data(stream, call):
                self._blocked.append(stream)

    def _send_data(self, stream: int, call: _Call) -> bool:
        """Send as much as the windows allow; return True if that was all."""
        rest = call.rest
        assert rest is not None
        while rest:
            size = min(len(rest), FRAME_BYTES, self._window, call.window)
            if size <= 0:
                call.rest = rest
                return False
            part, rest = rest[:size], rest[size:]
            self._window -= size
            call.window -= size
            flags = 0 if rest else connections.END_STREAM
            self._out += struct.pack(">I", size)[1:] + struct.pack(">BBI", 0, flags, stream)
            self._out += part
        call.rest = None
        return True

    def _end(self, stream: int, status: int) -> None:
        call = self._calls.pop(stream, None)
        if call is None:
            return
        took_ms = (time.perf_counter() - call.due) * 1e3
        if status == OK:
            self._sent.answered_ms.append(took_ms)
        elif status == RESOURCE_EXHAUSTED:
            self._sent.rejected_ms.append(took_ms)
        else:
            name = str(status)
            self._sent.other[name] = self._sent.other.get(name, 0) + 1
        if call.rest is not None:  # the server does not want the rest of the message
            cancel = struct.pack(">I", 8)
            self._out += connections.frame(connections.RST_STREAM, 0, stream, cancel)
        if self._waiting:
            self.call(self._waiting.popleft())


def send(
    address: str, message: bytes, rate: float, seconds: float, peers: int, in_flight: int = 0
) -> Sent:
    """Send calls and return their outcome.

    Args:
        address: the server, HOST:PORT.
        message: a request, serialized.
        rate: calls per second, at random moments (Poisson).
        seconds: duration.
        peers: number of connections.
        in_flight: number of calls that wait for replies all the time, in place of a rate.
    """
    sent = Sent(rate)
    framed = b"\0" + struct.pack(">I", len(message)) + message
    open_ = [_Connection(address, framed, sent) for _ in range(peers)]
    ready = selectors.DefaultSelector()
    for each in open_:
        ready.register(each.socket, selectors.EVENT_READ, each)
    settle = time.perf_counter() + 0.2
    while time.perf_counter() < settle:
        _turn(ready, open_, 0.01)
    used_s, start = time.process_time(), time.perf_counter() + 0.01
    if in_flight:
        _closed_loop(ready, open_, in_flight, start + seconds)
    else:
        _open_loop(ready, open_, sent, start, seconds)
    sent.sender_share = (time.process_time() - used_s) / (time.perf_counter() - start)
    until = time.perf_counter() + LIMIT_S
    while not all(each.is_idle for each in open_) and time.perf_counter() < until:
        _turn(ready, open_, 0.05)
    sent.seconds = time.perf_counter() - start
    left_open = sum(not each.is_idle for each in open_)
    if left_open:
        sent.other["no reply"] = left_open
    for each in open_:
        each.socket.close()
    return sent


def _open_loop(
    ready: selectors.BaseSelector,
    open_: list[_Connection],
    sent: Sent,
    start: float,
    seconds: float,
) -> None:
    gaps = np.random.default_rng(5).exponential(1 / sent.rate, int(sent.rate * seconds))
    for number, due in enumerate((start + np.cumsum(gaps)).tolist()):
        while (left := due - time.perf_counter()) > 0:
            _turn(ready, open_, left)
        sent.most_late_ms = max(sent.most_late_ms, -left * 1e3)
        open_[number % len(open_)].call(due)
        if number % 8 == 0 or left > -1e-4:
            _turn(ready, open_, 0)


def _closed_loop(
    ready: selectors.BaseSelector, open_: list[_Connection], in_flight: int, until: float
) -> None:
    number = count()
    while (now := time.perf_counter()) < until:
        for _ in range(in_flight - sum(each.in_flight for each in open_)):
            open_[next(number) % len(open_)].call(now)
        _turn(ready, open_, 0.05)


def _turn(ready: selectors.BaseSelector, open_: list[_Connection], wait_s: float) -> None:
    """Write, then read what arrives within the time."""
    for each in open_:
        each.flush()
        if each.has_output:
            wait_s = min(wait_s, 0.001)
    for key, _ in ready.select(max(0.0, wait_s)):
        key.data.read()


def sending(
    address: str, request: Path, rate: float, seconds: float, peers: int = 8, in_flight: int = 0
) -> Sent:
    """Send calls from another process, on the cores of this one; arguments as of `send`."""
    settings = {
        "address": address,
        "request": str(request),
        "rate": rate,
        "seconds": seconds,
        "peers": peers,
        "in_flight": in_flight,
    }
    command = [sys.executable, "-m", "benchmarks.reliability.sending"]
    done = subprocess.run(
        command, input=json.dumps(settings), capture_output=True, text=True, check=True
    )
    return Sent(**json.loads(done.stdout))


def main() -> None:
    """Read the settings, send, and print the outcome."""
    settings = json.loads(sys.stdin.read())
    message = Path(settings.pop("request")).read_bytes()
    print(json.dumps(asdict(send(message=message, **settings))))


if __name__ == "__main__":
    main()
