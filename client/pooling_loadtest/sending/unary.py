"""Unary calls of gRPC with requests that were encoded before.

`multicallable.future` with a callback is the fastest public way of Python to have many calls in
flight: see benchmarks/loadtest.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import grpc

from pooling_loadtest.recorder import CANCELLED, OK, Recorder
from pooling_loadtest.sending.base import Metadata

_TIMING = "server-timing"


class UnarySender:
    """Sends unary calls of one method over several channels in turn.

    Args:
        channels: the channels.
        path: path of the method.
        requests: one request for each payload.
        timeout_s: deadline of each call.
        metadata: metadata of each call.
        recorder: records the calls.
    """

    limit = 0

    def __init__(
        self,
        channels: Sequence[grpc.Channel],
        path: str,
        requests: Sequence[bytes],
        timeout_s: float,
        metadata: Metadata,
        recorder: Recorder,
    ) -> None:
        self.variants = len(requests)
        methods: list[Any] = [channel.unary_unary(path) for channel in channels]
        self._turns = itertools.cycle(methods)
        self._requests = requests
        self._timeout_s, self._metadata = timeout_s, metadata
        self._recorder = recorder

    def send(self, row: int, variant: int) -> None:
        """Start a call."""
        call = next(self._turns).future(
            self._requests[variant], timeout=self._timeout_s, metadata=self._metadata
        )
        call.add_done_callback(partial(self._end, row, variant))

    def close(self) -> None:
        """Do nothing: the owner of the channels closes them."""

    def _end(self, row: int, variant: int, call: Any) -> None:
        try:
            self._record(row, variant, call)
        except Exception as error:  # gRPC would only log it
            self._recorder.broke(error, [row])

    def _record(self, row: int, variant: int, call: Any) -> None:
        status = CANCELLED if call.cancelled() else call.code().value[0]
        if status != OK:
            self._recorder.failed(row, status)
            return
        reply = call.result()
        timing = next((each.value for each in call.trailing_metadata() if each.key == _TIMING), "")
        self._recorder.replied(row, variant, reply, len(reply), timing)
