"""Stream whose events a calling thread waits for. All use of private parts of gRPC is here.

The public blocking stream hands each message to a thread that sends it, and each reply from a
thread that polls to the one that reads. These hand-overs take longer than a small call. A blocking
unary call of gRPC polls in the calling thread; this class does the same for a stream.
"""

from __future__ import annotations

import importlib
from typing import Any

import grpc

from pooling_client._connection import Pairs

REPLY, SENT, ENDED, WOKEN = "reply", "sent", "ended", "woken"
_HEADERS, _FINISHED = "headers", "finished"
_NO_FLAGS = 0


class PolledStream:
    """One bidirectional stream without a deadline.

    One thread at a time waits in `next_event`; another may call the other methods meanwhile, one
    at a time.

    Args:
        channel: channel without interceptors.
        path: path of a streaming method.
        metadata: metadata of the stream.

    Raises:
        Exception: this version of gRPC has other private parts, or the channel is closed.
    """

    def __init__(self, channel: grpc.Channel, path: str, metadata: Pairs | None = None) -> None:
        cygrpc: Any = importlib.import_module("grpc._cython.cygrpc")
        self._operations = cygrpc
        self._due = {_HEADERS, REPLY, ENDED}
        begin = (
            cygrpc.SendInitialMetadataOperation(metadata, _NO_FLAGS),
            cygrpc.ReceiveStatusOnClientOperation(_NO_FLAGS),
        )
        self._call = channel._channel.segregated_call(  # type: ignore[attr-defined]
            cygrpc.PropagationConstants.GRPC_PROPAGATE_DEFAULTS,
            path.encode(),
            None,  # host
            None,  # deadline
            None,  # metadata
            None,  # credentials
            (
                (begin, ENDED),
                ((cygrpc.ReceiveInitialMetadataOperation(_NO_FLAGS),), _HEADERS),
                ((cygrpc.ReceiveMessageOperation(_NO_FLAGS),), REPLY),
            ),
            cygrpc.build_census_context(),
            None,  # handle of a registered method
        )

    def send(self, message: bytes) -> None:
        """Start to send a message; the event is SENT. One message at a time."""
        self._start(SENT, self._operations.SendMessageOperation(message, _NO_FLAGS))

    def receive(self) -> None:
        """Start to receive the next message; the event is REPLY."""
        self._start(REPLY, self._operations.ReceiveMessageOperation(_NO_FLAGS))

    def finish(self) -> None:
        """End the stream after the messages sent before."""
        self._start(_FINISHED, self._operations.SendCloseFromClientOperation(_NO_FLAGS))

    def wake(self) -> None:
        """Make `next_event` return WOKEN."""
        if WOKEN not in self._due:
            self._start(WOKEN)

    def cancel(self) -> None:
        """End the stream."""
        self._call.cancel(self._operations.StatusCode.cancelled, "the stream is not needed")

    def next_event(self) -> tuple[str, bytes | None]:
        """Wait for the next event; return its kind and, for REPLY, the message.

        The message is None at the end of the stream, and ENDED follows.
        """
        event = self._call.next_event()
        self._due.discard(event.tag)
        message = event.batch_operations[0].message() if event.tag == REPLY else None
        return event.tag, message

    def drain(self) -> None:
        """Wait for the events of all operations, after the end of the stream."""
        while self._due:
            self.next_event()

    def _start(self, event: str, *operation: Any) -> None:
        self._due.add(event)
        if not self._call.operate(operation, event):  # the stream has ended
            self._due.discard(event)
