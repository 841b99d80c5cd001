"""Transports: calls without arguments that send a tensor and receive the result."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grpc
import numpy as np

import pooling_engine
from benchmarks.wire import floats as wire_floats
from benchmarks.wire import suite
from benchmarks.wire.servers import Server
from benchmarks.wire.suite import Payload
from pooling_client import PoolingClient, _connection, _limits, _shared_memory
from pooling_wire.v1 import pooling_pb2 as pb

Call = Callable[[], Any]
TIMEOUT_S = 60
FLIGHT_BATCH_BYTES = 4 << 20
NEVER, ALWAYS, SOMETIMES = 1 << 60, 0, _limits.STREAM_BYTES


class Connections(NamedTuple):
    """One client per server.

    Attributes:
        ours: makes unary calls and streams of one call.
        sharing: small calls share streams.
        flight: None if pyarrow is not installed.
    """

    others: grpc.Channel
    ours: PoolingClient
    sharing: PoolingClient
    unix: PoolingClient
    flight: Any


def has_flight() -> bool:
    return importlib.util.find_spec("pyarrow") is not None


def connect(pooling: Server, others: Server, flight_server: Server | None) -> Connections:
    flight_client = None
    if flight_server is not None:
        from pyarrow import flight

        flight_client = flight.connect(f"grpc://{flight_server.addresses[0]}")
    return Connections(
        grpc.insecure_channel(others.addresses[0], options=_connection.CHANNEL_OPTIONS),
        PoolingClient(pooling.addresses[0], timeout=TIMEOUT_S, shared_streams=False),
        PoolingClient(pooling.addresses[0], timeout=TIMEOUT_S),
        PoolingClient(pooling.addresses[1], timeout=TIMEOUT_S),
        flight_client,
    )


def close(connections: Connections) -> None:
    for each in connections:
        if each is not None:
            each.close()


def calls_for(payload: Payload, at: Connections) -> dict[str, Call]:
    """Return the transports that can carry the payload."""
    x = payload.tensor()
    calls = {suite.ECHO_STREAM: echo_stream(payload, x, at.others)}
    if at.flight is not None:
        calls[suite.FLIGHT] = flight_echo(payload, x, at.flight)
    if payload.request_bytes <= suite.UNARY_BYTES:
        calls[suite.ECHO] = echo(payload, at.others)
        calls[suite.NAIVE] = naive(payload, x, at.others)
        calls[suite.UNARY] = ours(payload, x, at.ours, NEVER)
    if payload.request_bytes <= _limits.SHARED_STREAM_BYTES:
        calls[suite.SHARED_STREAM] = ours(payload, x, at.sharing, NEVER)
    if payload.request_bytes <= suite.FLOATS_BYTES:
        calls[suite.FLOATS] = floats(payload, x, at.others)
    calls[suite.STREAM] = ours(payload, x, at.ours, ALWAYS)
    if is_shared(payload, at.unix):
        calls[suite.SHARED] = shared(payload, x, at.unix)
        calls[suite.SHARED_COPIED] = ours(payload, x, at.unix, SOMETIMES)
    calls[suite.LOCAL] = local(payload, x)
    return {name: calls[name] for name in suite.TRANSPORTS if name in calls}


def echo(payload: Payload, channel: grpc.Channel) -> Call:
    call = channel.unary_unary("/bench/Echo")
    request = payload.reply_bytes.to_bytes(8, "little") + bytes(payload.request_bytes - 8)
    return lambda: call(request, timeout=TIMEOUT_S)


def echo_stream(payload: Payload, x: np.ndarray, channel: grpc.Channel) -> Call:
    """Send chunks of the size of ours, cut while sending, as many in flight as ours."""
    data = memoryview(x.reshape(-1).view(np.uint8))
    count = -(-payload.request_bytes // _limits.CHUNK_BYTES)
    chunk = -(-payload.request_bytes // count)
    head = (payload.reply_bytes // count).to_bytes(8, "little")
    call = channel.stream_stream("/bench/EchoStream")

    def work() -> None:
        room = threading.Semaphore(_limits.CHUNK_WINDOW)

        def requests() -> Iterator[bytes]:
            for at in range(0, len(data), chunk):
                room.acquire()
                yield b"".join((head, data[at + 8 : at + chunk]))

        for _ in call(requests(), timeout=TIMEOUT_S):
            room.release()

    return work


def flight_echo(payload: Payload, x: np.ndarray, client: Any) -> Call:
    """Send batches that are views of the tensor, and read the batches of the reply."""
    import pyarrow as arrow
    from pyarrow import flight

    schema = arrow.schema([("values", arrow.uint8())])
    whole = arrow.array(x.reshape(-1).view(np.uint8))
    count = -(-payload.request_bytes // FLIGHT_BATCH_BYTES)
    size = str(payload.reply_bytes // count).encode()
    batches = [
        arrow.RecordBatch.from_arrays([whole.slice(at, FLIGHT_BATCH_BYTES)], schema=schema)
        for at in range(0, payload.request_bytes, FLIGHT_BATCH_BYTES)
    ]
    descriptor = flight.FlightDescriptor.for_command(b"echo")
    options = flight.FlightCallOptions(timeout=TIMEOUT_S)

    def work() -> None:
        writer, reader = client.do_exchange(descriptor, options)

        def send() -> None:
            writer.begin(schema)
            for batch in batches:
                writer.write_with_metadata(batch, size)
            writer.done_writing()

        if len(batches) == 1:
            send()
        else:
            sender = threading.Thread(target=send)
            sender.start()
        for _ in reader:
            pass
        if len(batches) > 1:
            sender.join()
        writer.close()

    return work


def naive(payload: Payload, x: np.ndarray, channel: grpc.Channel) -> Call:
    """Make one unary call with the generated classes, as a tutorial would."""
    call = channel.unary_unary(
        "/bench/Naive", pb.ForwardRequest.SerializeToString, pb.ForwardResponse.FromString
    )
    pad = payload.padding
    window = pb.Window(kernel=3, stride=2, padding_before=pad, padding_after=pad)

    def work() -> np.ndarray:
        windows = pb.SlidingWindows(axes=[window, window])
        spec = pb.PoolSpec(mode=pb.MODE_MAX, sliding_windows=windows)
        tensor = pb.Tensor(element_type=pb.ELEMENT_TYPE_FLOAT32, shape=x.shape, data=x.tobytes())
        output = call(pb.ForwardRequest(spec=spec, input=tensor), timeout=TIMEOUT_S).output
        return np.frombuffer(output.data, np.float32).reshape(output.shape).copy()

    return work


def floats(payload: Payload, x: np.ndarray, channel: grpc.Channel) -> Call:
    message = wire_floats.Floats
    call = channel.unary_unary("/bench/Floats", message.SerializeToString, message.FromString)
    metadata = [("padding", str(payload.padding))]

    def work() -> np.ndarray:
        reply = call(wire_floats.encode(x), metadata=metadata, timeout=TIMEOUT_S)
        return wire_floats.decode(reply)

    return work


def ours(payload: Payload, x: np.ndarray, client: PoolingClient, stream_bytes: int) -> Call:
    """Call our client, which streams tensors of more than `stream_bytes`."""
    out, spec = np.empty(payload.output_shape, np.float32), payload.spec

    def work() -> np.ndarray:
        _limits.STREAM_BYTES = stream_bytes
        return client.forward(x, spec, out=out, timeout=TIMEOUT_S).output

    return work


def is_shared(payload: Payload, client: PoolingClient) -> bool:
    """Return True if the client shares tensors of that size and the server has room for them."""
    arrays = client._shared_memory.arrays()
    if arrays is None or payload.request_bytes < _shared_memory.SHARED_BYTES:
        return False
    tensors = [arrays.empty(payload.shape, np.float32) for _ in range(2)]  # both transports
    return all(tensor is not None for tensor in tensors)


def shared(payload: Payload, x: np.ndarray, client: PoolingClient) -> Call:
    """Call our client with both tensors in shared memory."""
    inside, out = client.empty(x.shape), client.empty(payload.output_shape)
    inside[...] = x
    spec = payload.spec
    return lambda: client.forward(inside, spec, out=out, timeout=TIMEOUT_S).output


def local(payload: Payload, x: np.ndarray) -> Call:
    out, spec = np.empty(payload.output_shape, np.float32), payload.spec
    return lambda: pooling_engine.forward(x, spec, out=out).output


def copies(payload: Payload) -> dict[str, Call]:
    """Return copies of the two tensors into memory that is already mapped."""
    x, y = payload.tensor(), np.ones(payload.output_shape, np.float32)
    x_to, y_to = np.ones_like(x), np.ones_like(y)
    return {
        suite.COPY_IN: lambda: np.copyto(x_to, x),
        suite.COPY_OUT: lambda: np.copyto(y_to, y),
    }
