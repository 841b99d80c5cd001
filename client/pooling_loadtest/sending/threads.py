"""Blocking calls in a pool of threads: shared memory, and the base of REST."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple

from pooling_client import PoolingClient
from pooling_engine import ForwardCall, PoolingError
from pooling_loadtest.payloads import Payload
from pooling_loadtest.recorder import OK, Recorder
from pooling_wire import encode_error


class Outcome(NamedTuple):
    """Outcome of a blocking call: gRPC status code, the reply, and its size in bytes."""

    status: int
    reply: Any = None
    size: int = 0


Work = Callable[[int], Outcome]


class ThreadSender:
    """Sends calls from a pool of threads; a call that waits for a thread counts as not sent.

    Args:
        workers: one function for each thread, from the number of a payload to the outcome.
        variants: number of payloads.
        recorder: records the calls.
        at_close: called by `close`.
    """

    def __init__(
        self,
        workers: Sequence[Work],
        variants: int,
        recorder: Recorder,
        at_close: Callable[[], None],
    ) -> None:
        self.variants, self.limit = variants, len(workers)
        self._recorder, self._at_close = recorder, at_close
        self._queue: SimpleQueue[tuple[int, int] | None] = SimpleQueue()
        for work in workers:
            threading.Thread(target=self._run, args=(work,), daemon=True).start()

    def send(self, row: int, variant: int) -> None:
        """Queue a call."""
        self._queue.put((row, variant))

    def close(self) -> None:
        """End the threads after their present calls."""
        for _ in range(self.limit):
            self._queue.put(None)
        self._at_close()

    def _run(self, work: Work) -> None:
        recorder = self._recorder
        while (taken := self._queue.get()) is not None:
            row, variant = taken
            recorder.calls.sent_ns[row] = recorder.now()
            try:
                outcome = work(variant)
                if outcome.status == OK:
                    recorder.replied(row, variant, outcome.reply, outcome.size)
                else:
                    recorder.failed(row, outcome.status)
            except Exception as error:  # would end the thread, and leave the call without a status
                recorder.broke(error, [row])


def shared_memory_sender(
    client: PoolingClient, payloads: Sequence[Payload], threads: int, recorder: Recorder
) -> ThreadSender:
    """Return a sender of blocking calls of the client, with arrays in shared memory.

    Args:
        client: client of a server at ``unix:/PATH``; `close` closes it.
        payloads: the calls.
        threads: number of threads, each with arrays for one call.
        recorder: records the calls.
    """
    workers = [_SharedMemoryWork(client, payloads) for _ in range(threads)]
    return ThreadSender(workers, len(payloads), recorder, client.close)


def status_of(error: PoolingError) -> int:
    """Return the gRPC status code of an error."""
    return int(encode_error(error).code.value[0])


class _SharedMemoryWork:
    """Calls of one thread, one at a time."""

    def __init__(self, client: PoolingClient, payloads: Sequence[Payload]) -> None:
        self._client, self._payloads = client, payloads
        self._inputs: list[Any] = []

    def __call__(self, variant: int) -> Outcome:
        payload = self._payloads[variant]
        call = payload.call
        try:
            if not self._inputs:
                self._allocate()
            x = self._inputs[variant]
            if isinstance(call, ForwardCall):
                reply: Any = self._client.forward(
                    x, call.spec, return_indices=call.return_indices, out=self._out
                )
            else:
                reply = self._client.backward(
                    x,
                    call.spec,
                    input_shape=call.input_shape,
                    indices=call.indices,
                    input=call.input,
                    out=self._out,
                )
        except PoolingError as error:
            return Outcome(status_of(error))
        return Outcome(OK, reply, payload.reply_bytes)

    def _allocate(self) -> None:
        first = self._payloads[0].expected[0]
        self._out = self._client.empty(first.shape, first.dtype)
        for payload in self._payloads:
            shared = self._client.empty(payload.tensor.shape, payload.tensor.dtype)
            shared[...] = payload.tensor
            self._inputs.append(shared)
