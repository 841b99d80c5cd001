"""Calls as items of one stream for each connection, with items that were encoded before."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

import grpc

from pooling_engine import PoolingError
from pooling_loadtest.recorder import CANCELLED, Recorder
from pooling_loadtest.sending.base import Metadata
from pooling_wire import Method, encode_error


class StreamSender:
    """Sends items over a stream of each channel, in turn. A stream that ends is opened again.

    Args:
        channels: the channels.
        method: method of the items.
        items: one item for each payload.
        metadata: metadata of each stream.
        recorder: records the calls.
    """

    limit = 0

    def __init__(
        self,
        channels: Sequence[grpc.Channel],
        method: Method[object, object],
        items: Sequence[bytes],
        metadata: Metadata,
        recorder: Recorder,
    ) -> None:
        self.variants = len(items)
        self._streams = [
            _Stream(channel, method, items, metadata, recorder) for channel in channels
        ]
        self._turns = itertools.cycle(self._streams)

    def send(self, row: int, variant: int) -> None:
        """Start a call."""
        next(self._turns).send(row, variant)

    def close(self) -> None:
        """Cancel the streams."""
        for stream in self._streams:
            stream.close()


class _Stream:
    def __init__(
        self,
        channel: grpc.Channel,
        method: Method[object, object],
        items: Sequence[bytes],
        metadata: Metadata,
        recorder: Recorder,
    ) -> None:
        self._open_call: Any = channel.stream_stream(method.stream_path)
        self._method, self._items, self._recorder = method, items, recorder
        self._metadata = metadata
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, int]] | None = None  # None: no stream is open
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._call: Any = None

    def send(self, row: int, variant: int) -> None:
        with self._lock:
            if self._waiting is None:
                self._open()
            assert self._waiting is not None
            self._waiting.append((row, variant))
            self._queue.put(self._items[variant])

    def close(self) -> None:
        if self._call is not None:
            self._call.cancel()

    def _open(self) -> None:
        self._waiting, self._queue = deque(), SimpleQueue()
        self._call = self._open_call(iter(self._queue.get, None), metadata=self._metadata)
        arguments = self._call, self._waiting, self._queue
        threading.Thread(target=self._receive, args=arguments, daemon=True).start()

    def _receive(
        self,
        call: Any,
        waiting: deque[tuple[int, int]],
        queue: SimpleQueue[bytes | None],
    ) -> None:
        status = CANCELLED
        try:
            for reply in call:
                self._record(*waiting[0], reply)
                waiting.popleft()
        except grpc.RpcError as error:
            status = error.code().value[0]
        except Exception as error:  # would end the thread, and leave its calls without a status
            self._recorder.broke(error, [row for row, _ in waiting])
            waiting.clear()
            call.cancel()
        finally:
            with self._lock:
                self._waiting = None
                queue.put(None)  # ends the thread that sends
            for row, _ in waiting:
                self._recorder.failed(row, status)

    def _record(self, row: int, variant: int, reply: bytes) -> None:
        _, result = self._method.decode_reply(reply)
        if isinstance(result, PoolingError):
            self._recorder.failed(row, int(encode_error(result).code.value[0]))
        else:
            self._recorder.replied(row, variant, result, len(reply))
