"""The lease protocol, and locations in leased regions, with clients that speak it directly."""

from __future__ import annotations

import errno
import mmap
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest

import pooling_engine
from pooling_engine import InvalidTensorError, PoolSpec, UnsupportedError
from pooling_server import PoolingServer, ServerConfig
from pooling_server.sockets import shared_memory
from pooling_wire.shared_memory import HANDLE_BYTES, LEASE_SUFFIX, encode_size
from pooling_wire.v1 import pooling_pb2 as pb
from pooling_wire.v1 import pooling_pb2_grpc
from tests.server.support import wait_for_regions
from tests.support.waiting import LIMIT_S

MIB = 1 << 20


class Lease:
    """A connection to a server's lease socket, and one region of 1 MiB."""

    def __init__(self, server: PoolingServer) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(LIMIT_S)
        self.socket.connect(server.addresses[0].removeprefix("unix:") + LEASE_SUFFIX)

    def request(self, size: int) -> tuple[bytes, list[int]]:
        self.socket.send(encode_size(size))
        packet, descriptors, _, _ = socket.recv_fds(self.socket, 64, 1)
        return packet, descriptors


@pytest.fixture
def lease(unix_server: PoolingServer) -> Iterator[Lease]:
    lease = Lease(unix_server)
    yield lease
    lease.socket.close()


def test_a_view_keeps_its_region_when_the_lease_ends(
    unix_server: PoolingServer, lease: Lease
) -> None:
    handle, (descriptor,) = lease.request(MIB)
    os.pwrite(descriptor, b"\x07", MIB - 1)
    os.close(descriptor)
    view = unix_server.shared_memory.find(handle)
    lease.socket.close()
    wait_for_regions(unix_server, 0)
    assert view[MIB - 1] == 7


def test_a_region_cannot_be_resized(lease: Lease) -> None:
    handle, (descriptor,) = lease.request(MIB)
    assert len(handle) == HANDLE_BYTES
    for size in (0, MIB - 1, MIB + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, size)
    os.close(descriptor)


@pytest.mark.parametrize("size", [0, 16 * MIB + 1, 1 << 62, (1 << 64) - 1])
def test_a_size_over_the_limit_is_rejected(lease: Lease, size: int) -> None:
    assert lease.request(size) == (encode_size(16 * MIB), [])
    handle, descriptors = lease.request(MIB)
    assert len(handle) == HANDLE_BYTES
    os.close(descriptors[0])


@pytest.mark.parametrize("packet", [b"x", b"x" * 31, b"x" * 32, b"x" * 33, b"x" * 5000])
def test_an_invalid_packet_ends_the_lease(
    unix_server: PoolingServer, lease: Lease, packet: bytes
) -> None:
    os.close(lease.request(MIB)[1][0])
    lease.socket.send(packet)
    assert lease.socket.recv(64) == b""
    wait_for_regions(unix_server, 0)


def test_a_client_cannot_return_the_region_of_another(
    unix_server: PoolingServer, lease: Lease
) -> None:
    handle, descriptors = lease.request(MIB)
    os.close(descriptors[0])
    other = Lease(unix_server)
    other.socket.send(handle)
    assert other.socket.recv(64) == b""
    assert unix_server.shared_memory.region_count == 1
    other.socket.close()


def test_handles_are_unique(lease: Lease) -> None:
    handles = set()
    for _ in range(8):
        handle, descriptors = lease.request(MIB)
        os.close(descriptors[0])
        handles.add(handle)
    assert len(handles) == 8


class Crowded(socket.socket):
    """A listener whose process has no free descriptor for the first three calls of `accept`."""

    rejected = 0

    def accept(self) -> tuple[socket.socket, object]:
        if self.rejected < 3:
            self.rejected += 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


def test_leasing_waits_for_a_free_descriptor(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a pause, the thread would call `accept` in a busy loop."""
    pauses: list[float] = []
    monkeypatch.setattr(shared_memory, "time", SimpleNamespace(sleep=pauses.append))
    listener = Crowded(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(f"{socket_path}{LEASE_SUFFIX}")
    listener.listen()
    memory = shared_memory.SharedMemory([listener], MIB, pin=None)
    memory.start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(LIMIT_S)
        client.connect(f"{socket_path}{LEASE_SUFFIX}")
        client.send(encode_size(MIB))
        handle, descriptors, _, _ = socket.recv_fds(client, 64, 1)
    os.close(descriptors[0])
    assert len(handle) == HANDLE_BYTES
    assert listener.rejected == 3
    assert pauses == [0.1] * 3
    memory.stop()


def forward_request(handle: bytes, offset: int = 0, **fields: object) -> pb.ForwardRequest:
    request = pb.ForwardRequest(
        spec=pb.PoolSpec(
            mode=pb.MODE_MAX,
            sliding_windows=pb.SlidingWindows(axes=[pb.Window(kernel=2)] * 2),
        ),
        input=pb.Tensor(
            element_type=pb.ELEMENT_TYPE_FLOAT32,
            shape=(4, 16, 32, 32),
            shared=pb.SharedMemory(handle=handle, offset=offset),
        ),
    )
    for name, value in fields.items():
        if isinstance(value, pb.SharedMemory):
            getattr(request, name).CopyFrom(value)
        else:
            setattr(request, name, value)
    return request


INPUT_BYTES = 4 * 16 * 32 * 32 * 4
INVALID, UNIMPLEMENTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED
INVALID_PLACES = {
    "unknown handle": (lambda h: forward_request(b"y" * 32), "input.shared"),
    "no handle": (lambda h: forward_request(b""), "input.shared"),
    "before the region": (lambda h: forward_request(h, -4), "input.shared"),
    "over its end": (lambda h: forward_request(h, MIB - INPUT_BYTES + 4), "input.shared"),
    "far over its end": (lambda h: forward_request(h, (1 << 63) - 4), "input.shared"),
    "between elements": (lambda h: forward_request(h, 2), "input.shared.offset"),
    "output over the end": (
        lambda h: forward_request(h, output_place=pb.SharedMemory(handle=h, offset=MIB - 4)),
        "output_place",
    ),
    "output over the input": (
        lambda h: forward_request(h, output_place=pb.SharedMemory(handle=h, offset=64)),
        "out",
    ),
    "indices not requested": (
        lambda h: forward_request(h, indices_place=pb.SharedMemory(handle=h)),
        "indices_place",
    ),
    "indices over the output": (
        lambda h: forward_request(
            h,
            return_indices=True,
            output_place=pb.SharedMemory(handle=h, offset=MIB // 2),
            indices_place=pb.SharedMemory(handle=h, offset=MIB // 2),
        ),
        "out",
    ),
}


@pytest.mark.parametrize("name", INVALID_PLACES)
def test_invalid_places_are_rejected(unix_server: PoolingServer, lease: Lease, name: str) -> None:
    make, field = INVALID_PLACES[name]
    handle, descriptors = lease.request(MIB)
    os.close(descriptors[0])
    with grpc.insecure_channel(unix_server.addresses[0]) as channel:
        stub = pooling_pb2_grpc.PoolingServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Forward(make(handle), timeout=LIMIT_S)
        assert caught.value.code() is INVALID, caught.value.details()
        assert field in caught.value.details()
        assert handle.hex() not in str(caught.value)
        assert repr(handle) not in str(caught.value)
        reply = stub.Forward(forward_request(handle), timeout=LIMIT_S)  # the next call succeeds
        assert len(reply.output.data) == INPUT_BYTES // 4


def test_data_in_addition_to_a_place_is_rejected(unix_server: PoolingServer, lease: Lease) -> None:
    handle, descriptors = lease.request(MIB)
    os.close(descriptors[0])
    request = forward_request(handle)
    request.input.data = bytes(INPUT_BYTES)
    with grpc.insecure_channel(unix_server.addresses[0]) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            pooling_pb2_grpc.PoolingServiceStub(channel).Forward(request, timeout=LIMIT_S)
        assert caught.value.code() is INVALID


def item_of(id_: int, request: pb.ForwardRequest) -> pb.ForwardStreamRequest:
    return pb.ForwardStreamRequest(id=id_, request=request)


def test_handles_are_rejected_over_tcp(unix_server: PoolingServer, lease: Lease) -> None:
    handle, descriptors = lease.request(MIB)
    os.close(descriptors[0])
    with grpc.insecure_channel(unix_server.addresses[1]) as channel:
        stub = pooling_pb2_grpc.PoolingServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Forward(forward_request(handle), timeout=LIMIT_S)
        assert caught.value.code() is UNIMPLEMENTED
        items = iter([item_of(7, forward_request(handle))])
        (reply,) = stub.ForwardStream(items, timeout=LIMIT_S)
        assert (reply.id, reply.error.reason) == (7, UnsupportedError.reason)


@pytest.mark.parametrize("inline_calls", [True, False])
def test_stream_items_read_and_write_regions(socket_path: Path, inline_calls: bool) -> None:
    """Invalid locations are rejected with the item alone, whichever thread decodes it."""
    config = ServerConfig(
        listen=f"unix:{socket_path}", backend="numpy", warm_up=False, inline_calls=inline_calls
    )
    server = PoolingServer(config)
    server.start()
    lease = Lease(server)
    handle, descriptors = lease.request(MIB)
    with mmap.mmap(descriptors[0], MIB) as memory:
        os.close(descriptors[0])
        x = np.random.default_rng(0).standard_normal((4, 16, 32, 32), dtype=np.float32)
        memory[:INPUT_BYTES] = x.tobytes()
        place = pb.SharedMemory(handle=handle, offset=INPUT_BYTES)
        bad = [forward_request(handle, MIB), forward_request(b"?" * HANDLE_BYTES)]
        good = forward_request(handle, output_place=place)
        with grpc.insecure_channel(server.addresses[0]) as channel:
            stub = pooling_pb2_grpc.PoolingServiceStub(channel)
            items = [item_of(id_, each) for id_, each in enumerate([*bad, good, *bad])]
            replies = list(stub.ForwardStream(iter(items), timeout=LIMIT_S))
        assert [reply.id for reply in replies] == [0, 1, 2, 3, 4]
        reasons = [reply.error.reason for reply in replies]
        wrong = InvalidTensorError.reason
        assert reasons == [wrong, wrong, "", wrong, wrong]
        assert replies[2].response.output.data == b""
        want = pooling_engine.forward(x, PoolSpec("max", 2)).output
        got = memory[INPUT_BYTES : INPUT_BYTES + want.nbytes]
    lease.socket.close()
    assert server.stop()
    assert got == want.tobytes()


def test_a_place_ends_with_its_lease(unix_server: PoolingServer, lease: Lease) -> None:
    handle, descriptors = lease.request(MIB)
    os.close(descriptors[0])
    lease.socket.send(handle)
    wait_for_regions(unix_server, 0)
    with grpc.insecure_channel(unix_server.addresses[0]) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            pooling_pb2_grpc.PoolingServiceStub(channel).Forward(
                forward_request(handle), timeout=LIMIT_S
            )
        assert caught.value.code() is INVALID
