"""Shared memory over a Unix socket: bit-identical results, and no access to other memory."""

from __future__ import annotations

import errno
import gc
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest

import pooling_engine
from pooling_client import PoolingClient
from pooling_client._shared_memory import SHARED_BYTES
from pooling_engine import PoolSpec, TensorTooLargeError, UnsupportedError
from pooling_server import PoolingServer, ServerConfig
from pooling_server.sockets import shared_memory
from pooling_wire.shared_memory import leases
from pooling_wire.v1 import pooling_pb2 as pb
from pooling_wire.v1 import pooling_pb2_grpc
from tests.support import cases, oracle
from tests.support.processes import process
from tests.support.waiting import LIMIT_S, wait_until

MIB = 1 << 20
SHAPE = (4, 64, 56, 56)  # 3 MiB
MAX = PoolSpec("max", 2)


@pytest.fixture
def served(socket_path: Path) -> Iterator[PoolingServer]:
    config = ServerConfig(
        listen=f"unix:{socket_path},127.0.0.1:0",
        backend="numpy",
        warm_up=False,
        shared_memory_bytes=16 * MIB,
    )
    server = PoolingServer(config)
    server.start()
    yield server
    assert server.stop()
    assert server.stop()  # once more, to no effect
    assert list(socket_path.parent.iterdir()) == []


@pytest.fixture
def near(served: PoolingServer) -> Iterator[PoolingClient]:
    with PoolingClient(served.addresses[0]) as client:
        yield client


def mappings() -> list[range]:
    """Return the addresses of the regions that this process has mapped, server and clients."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    spans = [line.split()[0].split("-") for line in lines if "memfd:pooling" in line]
    return [range(int(start, 16), int(end, 16)) for start, end in spans]


def is_shared(array: np.ndarray) -> bool:
    """Return True if the array lies in shared memory."""
    return any(array.ctypes.data in mapping for mapping in mappings())


def mapped_regions() -> int:
    gc.collect()
    return len(mappings())


def wait_for_regions(server: PoolingServer, count: int) -> None:
    """Wait until exactly `count` regions are leased."""
    memory = server.shared_memory
    wait_until(lambda: memory.region_count == count, f"there are never {count} leased regions")


@pytest.mark.parametrize("own", [True, False], ids=["in shared memory", "ordinary"])
@pytest.mark.parametrize("mode", ["max", "average"])
def test_results_are_bit_identical_to_the_engine(near: PoolingClient, mode: str, own: bool) -> None:
    spec, x = PoolSpec(mode, 3, 2, 1), cases.normal(SHAPE)
    want = pooling_engine.forward(x, spec, return_indices=mode == "max")
    given = near.empty(SHAPE) if own else x
    given[...] = x
    got = near.forward(given, spec, return_indices=mode == "max")
    assert is_shared(got.output)
    oracle.assert_same_bits(got.output, want.output)
    if mode == "max":
        oracle.assert_same_bits(got.indices, want.indices)
    gradient = near.backward(got.output, spec, input_shape=SHAPE, indices=got.indices)
    assert is_shared(gradient)
    theirs = pooling_engine.backward(want.output, spec, input_shape=SHAPE, indices=want.indices)
    oracle.assert_same_bits(gradient, theirs)
    gradient[...] = 1  # it belongs to the caller


def test_results_are_written_to_out(near: PoolingClient) -> None:
    x = cases.normal(SHAPE)
    want = pooling_engine.forward(x, MAX).output
    for out in (np.empty_like(want), near.empty(want.shape)):
        assert near.forward(x, MAX, out=out).output is out
        oracle.assert_same_bits(out, want)
    dx = near.empty(SHAPE)
    assert near.backward(want, MAX, input=x, out=dx) is dx
    oracle.assert_same_bits(dx, pooling_engine.backward(want, MAX, input=x))


def test_plane_indices_are_sent_in_the_reply(near: PoolingClient) -> None:
    x = cases.normal(SHAPE)
    options = {"return_indices": True, "index_format": "plane"}
    oracle.assert_same_bits(
        near.forward(x, MAX, **options).indices, pooling_engine.forward(x, MAX, **options).indices
    )


def test_memory_is_reused_once_no_view_is_left(near: PoolingClient) -> None:
    first = near.empty((MIB,), np.uint8)
    address, row = first.ctypes.data, first[5:9]
    del first
    second = near.empty((MIB,), np.uint8)
    assert second.ctypes.data != address
    del row
    assert near.empty((MIB,), np.uint8).ctypes.data == address


def test_memory_may_be_freed_during_an_allocation(near: PoolingClient) -> None:
    """The garbage collector or another thread may free memory at any time."""
    kept = [near.empty((MIB,), np.uint8) for _ in range(2)]

    class Moment:
        @property
        def size_bytes(self) -> int:
            kept.clear()
            return 0

    arrays = near._shared_memory.arrays()
    assert arrays is not None
    arrays._free.append(Moment())  # type: ignore[arg-type]
    assert is_shared(near.empty((MIB,), np.uint8))
    assert kept == []


def test_tensors_are_sent_if_no_shared_memory_is_left(near: PoolingClient) -> None:
    kept = [near.empty((5 * MIB,), np.uint8) for _ in range(5)]
    assert [is_shared(array) for array in kept] == [True] * 3 + [False] * 2
    x = cases.normal(SHAPE)
    got = near.forward(x, MAX).output
    assert not is_shared(got)
    oracle.assert_same_bits(got, pooling_engine.forward(x, MAX).output)
    del kept
    assert is_shared(near.forward(x, MAX).output)


def test_a_tensor_over_the_limit_per_call_is_split(socket_path: Path) -> None:
    config = ServerConfig(
        listen=f"unix:{socket_path}", backend="numpy", warm_up=False, max_tensor_bytes=8 * MIB
    )
    server = PoolingServer(config)
    server.start()
    try:
        x = cases.normal((40, 16, 96, 96))
        with PoolingClient(server.address) as client:
            got = client.forward(x, MAX).output
            oracle.assert_same_bits(got, pooling_engine.forward(x, MAX).output)
    finally:
        server.stop()


def test_over_tcp_nothing_is_shared(served: PoolingServer) -> None:
    with PoolingClient(served.addresses[1]) as client:
        array = client.empty((300, 200), "float64")
        assert array.shape == (300, 200)
        assert not is_shared(array)
        x = cases.normal(SHAPE)
        oracle.assert_same_bits(
            client.forward(x, MAX).output, pooling_engine.forward(x, MAX).output
        )


def test_a_lease_ends_with_its_client(served: PoolingServer) -> None:
    with PoolingClient(served.addresses[0]) as client:
        client.forward(cases.normal(SHAPE), MAX)
        assert served.shared_memory.region_count == 2
    memory = served.shared_memory
    wait_until(lambda: memory.free_bytes == 16 * MIB, "the lease does not end")
    assert memory.region_count == 0


def test_a_killed_client_leaves_no_region(served: PoolingServer) -> None:
    code = (
        "import sys, numpy, time\n"
        "from pooling_client import PoolingClient\n"
        "client = PoolingClient(sys.argv[1])\n"
        "array = client.empty((4 << 20,), 'uint8')\n"
        "print('leased', flush=True)\n"
        "time.sleep(3600)\n"
    )
    before = mapped_regions()
    client = subprocess.Popen(
        [sys.executable, "-c", code, served.addresses[0]], stdout=subprocess.PIPE, text=True
    )
    assert client.stdout is not None
    assert client.stdout.readline() == "leased\n"
    assert served.shared_memory.region_count == 1
    client.send_signal(signal.SIGKILL)
    client.communicate(timeout=LIMIT_S)
    wait_for_regions(served, 0)
    wait_until(lambda: mapped_regions() == before, "the region is still mapped")


def test_a_client_continues_after_a_restart_of_the_server(socket_path: Path) -> None:
    x = cases.normal(SHAPE)
    want = pooling_engine.forward(x, MAX).output
    flags = ("--listen", f"unix:{socket_path}", "--backend", "numpy")
    with PoolingClient(f"unix:{socket_path}") as client:
        with process(*flags):
            mine = client.empty(SHAPE)
            mine[...] = x
            oracle.assert_same_bits(client.forward(mine, MAX).output, want)
        with process(*flags):  # the first server was killed
            oracle.assert_same_bits(client.forward(mine, MAX).output, want)
            assert is_shared(client.forward(mine, MAX).output)


@pytest.mark.parametrize("flags", [(), ("--shared-memory-bytes", "0")], ids=["on", "off"])
def test_the_lease_socket_has_the_configured_mode(
    socket_path: Path, flags: tuple[str, ...]
) -> None:
    lease_socket = Path(f"{socket_path}{leases.SUFFIX}")
    listen = ("--listen", f"unix:{socket_path}", "--backend", "numpy", "--socket-mode", "640")
    with process(*listen, *flags) as (server, _):
        assert lease_socket.exists() == (not flags)
        if not flags:
            assert stat.S_IMODE(lease_socket.stat().st_mode) == 0o640
        with PoolingClient(f"unix:{socket_path}") as client:
            x = cases.normal(SHAPE)
            client.forward(x, MAX)
        server.terminate()
        assert server.wait(LIMIT_S) == 0
    assert list(socket_path.parent.iterdir()) == []


# Below: clients that speak the lease protocol directly.


class Lease:
    """A connection to a server's lease socket, and one region of 1 MiB."""

    def __init__(self, server: PoolingServer) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(LIMIT_S)
        self.socket.connect(server.addresses[0].removeprefix("unix:") + leases.SUFFIX)

    def request(self, size: int) -> tuple[bytes, list[int]]:
        self.socket.send(leases.encode_size(size))
        packet, descriptors, _, _ = socket.recv_fds(self.socket, 64, 1)
        return packet, descriptors


@pytest.fixture
def lease(served: PoolingServer) -> Iterator[Lease]:
    lease = Lease(served)
    yield lease
    lease.socket.close()


def test_a_view_keeps_its_region_when_the_lease_ends(served: PoolingServer, lease: Lease) -> None:
    handle, (descriptor,) = lease.request(MIB)
    os.pwrite(descriptor, b"\x07", MIB - 1)
    os.close(descriptor)
    view = served.shared_memory.find(handle)
    lease.socket.close()
    wait_for_regions(served, 0)
    assert view[MIB - 1] == 7


def test_a_region_cannot_be_resized(lease: Lease) -> None:
    handle, (descriptor,) = lease.request(MIB)
    assert len(handle) == leases.HANDLE_BYTES
    for size in (0, MIB - 1, MIB + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, size)
    os.close(descriptor)


@pytest.mark.parametrize("size", [0, 16 * MIB + 1, 1 << 62, (1 << 64) - 1])
def test_a_size_over_the_limit_is_rejected(lease: Lease, size: int) -> None:
    assert lease.request(size) == (leases.encode_size(16 * MIB), [])
    handle, descriptors = lease.request(MIB)
    assert len(handle) == leases.HANDLE_BYTES
    os.close(descriptors[0])


@pytest.mark.parametrize("packet", [b"x", b"x" * 31, b"x" * 32, b"x" * 33, b"x" * 5000])
def test_an_invalid_packet_ends_the_lease(
    served: PoolingServer, lease: Lease, packet: bytes
) -> None:
    os.close(lease.request(MIB)[1][0])
    lease.socket.send(packet)
    assert lease.socket.recv(64) == b""
    wait_for_regions(served, 0)


def test_a_client_cannot_return_the_region_of_another(served: PoolingServer, lease: Lease) -> None:
    handle, descriptors = lease.request(MIB)
    os.close(descriptors[0])
    other = Lease(served)
    other.socket.send(handle)
    assert other.socket.recv(64) == b""
    assert served.shared_memory.region_count == 1
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
    listener.bind(f"{socket_path}{leases.SUFFIX}")
    listener.listen()
    memory = shared_memory.SharedMemory([listener], MIB, pin=None)
    memory.start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(LIMIT_S)
        client.connect(f"{socket_path}{leases.SUFFIX}")
        client.send(leases.encode_size(MIB))
        handle, descriptors, _, _ = socket.recv_fds(client, 64, 1)
    os.close(descriptors[0])
    assert len(handle) == leases.HANDLE_BYTES
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
def test_invalid_places_are_rejected(served: PoolingServer, lease: Lease, name: str) -> None:
    make, field = INVALID_PLACES[name]
    handle, descriptors = lease.request(MIB)
    os.close(descriptors[0])
    with grpc.insecure_channel(served.addresses[0]) as channel:
        stub = pooling_pb2_grpc.PoolingServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Forward(make(handle), timeout=LIMIT_S)
        assert caught.value.code() is INVALID, caught.value.details()
        assert field in caught.value.details()
        assert handle.hex() not in str(caught.value)
        assert repr(handle) not in str(caught.value)
        reply = stub.Forward(forward_request(handle), timeout=LIMIT_S)  # the next call succeeds
        assert len(reply.output.data) == INPUT_BYTES // 4


def test_data_in_addition_to_a_place_is_rejected(served: PoolingServer, lease: Lease) -> None:
    handle, descriptors = lease.request(MIB)
    os.close(descriptors[0])
    request = forward_request(handle)
    request.input.data = bytes(INPUT_BYTES)
    with grpc.insecure_channel(served.addresses[0]) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            pooling_pb2_grpc.PoolingServiceStub(channel).Forward(request, timeout=LIMIT_S)
        assert caught.value.code() is INVALID


def test_handles_are_rejected_over_tcp_and_on_streams(served: PoolingServer, lease: Lease) -> None:
    handle, descriptors = lease.request(MIB)
    os.close(descriptors[0])
    with grpc.insecure_channel(served.addresses[1]) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            pooling_pb2_grpc.PoolingServiceStub(channel).Forward(
                forward_request(handle), timeout=LIMIT_S
            )
        assert caught.value.code() is UNIMPLEMENTED
    with grpc.insecure_channel(served.addresses[0]) as channel:
        item = pb.ForwardStreamRequest(id=7, request=forward_request(handle))
        stub = pooling_pb2_grpc.PoolingServiceStub(channel)
        (reply,) = stub.ForwardStream(iter([item]), timeout=LIMIT_S)
        assert (reply.id, reply.error.reason) == (7, UnsupportedError.reason)


def test_a_place_ends_with_its_lease(served: PoolingServer, lease: Lease) -> None:
    handle, descriptors = lease.request(MIB)
    os.close(descriptors[0])
    lease.socket.send(handle)
    wait_for_regions(served, 0)
    with grpc.insecure_channel(served.addresses[0]) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            pooling_pb2_grpc.PoolingServiceStub(channel).Forward(
                forward_request(handle), timeout=LIMIT_S
            )
        assert caught.value.code() is INVALID


def test_small_calls_are_sent(near: PoolingClient) -> None:
    x = cases.normal((1, 1, 16, 16))
    assert x.nbytes < SHARED_BYTES
    assert not is_shared(near.forward(x, MAX).output)


def test_limits_apply_to_shared_tensors(socket_path: Path) -> None:
    config = ServerConfig(
        listen=f"unix:{socket_path}", backend="numpy", warm_up=False, max_tensor_bytes=MIB
    )
    server = PoolingServer(config)
    server.start()
    try:
        with PoolingClient(server.address) as client, pytest.raises(TensorTooLargeError):
            client.forward(cases.normal((1, 1, 600, 600)), PoolSpec("max", global_window=True))
    finally:
        server.stop()
