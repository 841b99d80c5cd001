"""Memory shared with callers over a Unix socket: the same bits, and nothing that is not theirs."""

from __future__ import annotations

import errno
import gc
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

import pooling_engine
from pooling_client import PoolingClient
from pooling_client._shared_memory import SHARED_BYTES, SharedArrays
from pooling_engine import PoolSpec, TensorTooLargeError, UnsupportedError
from pooling_server import PoolingServer, ServerConfig
from pooling_server.sockets.shared_memory import SharedMemory
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
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pooling-") as folder:
        yield Path(folder) / "s"


@pytest.fixture
def served(path: Path) -> Iterator[PoolingServer]:
    config = ServerConfig(
        listen=f"unix:{path},127.0.0.1:0",
        backend="numpy",
        warm_up=False,
        shared_memory_bytes=16 * MIB,
    )
    server = PoolingServer(config)
    server.start()
    yield server
    assert server.stop()
    assert server.stop()  # once more, to no effect
    assert list(path.parent.iterdir()) == []


@pytest.fixture
def near(served: PoolingServer) -> Iterator[PoolingClient]:
    with PoolingClient(served.addresses[0]) as client:
        yield client


def shared(client: PoolingClient) -> SharedArrays:
    arrays = client._sharing.arrays()
    assert arrays is not None
    return arrays


def regions_of(server: PoolingServer) -> int:
    return server.shared_memory.region_count


def mapped_regions() -> int:
    """How many regions this process has mapped, server and clients together."""
    gc.collect()
    return Path("/proc/self/maps").read_text().count("memfd:pooling")


@pytest.mark.parametrize("own", [True, False], ids=["in shared memory", "anywhere"])
@pytest.mark.parametrize("mode", ["max", "average"])
def test_the_bits_are_those_of_the_engine(near: PoolingClient, mode: str, own: bool) -> None:
    spec, x = PoolSpec(mode, 3, 2, 1), cases.normal(SHAPE)
    want = pooling_engine.forward(x, spec, return_indices=mode == "max")
    given = near.empty(SHAPE) if own else x
    given[...] = x
    got = near.forward(given, spec, return_indices=mode == "max")
    assert shared(near).place_of(got.output) is not None
    oracle.assert_same_bits(got.output, want.output)
    if mode == "max":
        oracle.assert_same_bits(got.indices, want.indices)
    gradient = near.backward(got.output, spec, input_shape=SHAPE, indices=got.indices)
    assert shared(near).place_of(gradient) is not None
    theirs = pooling_engine.backward(want.output, spec, input_shape=SHAPE, indices=want.indices)
    oracle.assert_same_bits(gradient, theirs)
    gradient[...] = 1  # the caller's own


def test_results_go_where_the_caller_wants_them(near: PoolingClient) -> None:
    x = cases.normal(SHAPE)
    want = pooling_engine.forward(x, MAX).output
    for out in (np.empty_like(want), near.empty(want.shape)):
        assert near.forward(x, MAX, out=out).output is out
        oracle.assert_same_bits(out, want)
    dx = near.empty(SHAPE)
    assert near.backward(want, MAX, input=x, out=dx) is dx
    oracle.assert_same_bits(dx, pooling_engine.backward(want, MAX, input=x))


def test_positions_of_the_plane_come_in_the_reply(near: PoolingClient) -> None:
    x = cases.normal(SHAPE)
    options = {"return_indices": True, "index_format": "plane"}
    oracle.assert_same_bits(
        near.forward(x, MAX, **options).indices, pooling_engine.forward(x, MAX, **options).indices
    )


def test_memory_is_used_again_once_no_view_is_left(near: PoolingClient) -> None:
    first = near.empty((MIB,), np.uint8)
    address, row = first.ctypes.data, first[5:9]
    del first
    second = near.empty((MIB,), np.uint8)
    assert second.ctypes.data != address
    del row
    assert near.empty((MIB,), np.uint8).ctypes.data == address


def test_memory_may_be_freed_while_some_is_looked_for(near: PoolingClient) -> None:
    """By the collector, or by another thread: at any moment."""
    kept = [near.empty((MIB,), np.uint8) for _ in range(2)]

    class Moment:
        @property
        def size_bytes(self) -> int:
            kept.clear()
            return 0

    shared(near)._free.append(Moment())  # type: ignore[arg-type]
    assert shared(near).place_of(near.empty((MIB,), np.uint8)) is not None
    assert kept == []


def test_where_no_memory_is_left_tensors_are_sent(near: PoolingClient) -> None:
    kept = [near.empty((5 * MIB,), np.uint8) for _ in range(5)]
    assert [shared(near).place_of(array) is not None for array in kept] == [True] * 3 + [False] * 2
    x = cases.normal(SHAPE)
    got = near.forward(x, MAX).output
    assert shared(near).place_of(got) is None
    oracle.assert_same_bits(got, pooling_engine.forward(x, MAX).output)
    del kept
    assert shared(near).place_of(near.forward(x, MAX).output) is not None


def test_a_tensor_over_the_limit_of_one_call_goes_in_pieces(path: Path) -> None:
    config = ServerConfig(
        listen=f"unix:{path}", backend="numpy", warm_up=False, max_tensor_bytes=8 * MIB
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
        assert client._sharing.arrays() is None
        assert client.empty((3, 2), "float64").shape == (3, 2)
        x = cases.normal(SHAPE)
        oracle.assert_same_bits(
            client.forward(x, MAX).output, pooling_engine.forward(x, MAX).output
        )


def test_a_lease_ends_with_its_client(served: PoolingServer) -> None:
    with PoolingClient(served.addresses[0]) as client:
        client.forward(cases.normal(SHAPE), MAX)
        assert regions_of(served) == 2
    wait_until(lambda: regions_of(served) == 0 and served.shared_memory.free_bytes == 16 * MIB)


def test_a_killed_client_leaves_nothing(served: PoolingServer) -> None:
    code = (
        "import sys, numpy, time\n"
        "from pooling_client import PoolingClient\n"
        "client = PoolingClient(sys.argv[1])\n"
        "array = client.empty((4 << 20,), 'uint8')\n"
        "print('leased', flush=True)\n"
        "time.sleep(3600)\n"
    )
    before = mapped_regions()
    caller = subprocess.Popen(
        [sys.executable, "-c", code, served.addresses[0]], stdout=subprocess.PIPE, text=True
    )
    assert caller.stdout is not None
    assert caller.stdout.readline() == "leased\n"
    assert regions_of(served) == 1
    caller.send_signal(signal.SIGKILL)
    caller.communicate(timeout=LIMIT_S)
    wait_until(lambda: regions_of(served) == 0 and mapped_regions() == before)


def test_a_call_holds_its_region_when_the_lease_ends(served: PoolingServer) -> None:
    arrays = SharedArrays(f"{served.addresses[0].removeprefix('unix:')}{leases.SUFFIX}")
    array = arrays.empty((MIB,), np.uint8)
    assert array is not None
    array[...] = 7
    place = arrays.place_of(array)
    assert place is not None
    held = served.shared_memory.find(place.handle)
    arrays.close()
    wait_until(lambda: regions_of(served) == 0)
    assert held[MIB - 1] == 7


def test_a_client_goes_on_after_its_server_came_back(path: Path) -> None:
    x = cases.normal(SHAPE)
    want = pooling_engine.forward(x, MAX).output
    flags = ("--listen", f"unix:{path}", "--backend", "numpy")
    with PoolingClient(f"unix:{path}") as client:
        with process(*flags):
            mine = client.empty(SHAPE)
            mine[...] = x
            oracle.assert_same_bits(client.forward(mine, MAX).output, want)
        with process(*flags):  # the first one was killed
            oracle.assert_same_bits(client.forward(mine, MAX).output, want)
            assert shared(client).place_of(client.forward(mine, MAX).output) is not None


@pytest.mark.parametrize("flags", [(), ("--shared-memory-bytes", "0")], ids=["on", "off"])
def test_who_may_connect_may_lease(path: Path, flags: tuple[str, ...]) -> None:
    lease_socket = Path(f"{path}{leases.SUFFIX}")
    listen = ("--listen", f"unix:{path}", "--backend", "numpy", "--socket-mode", "640")
    with process(*listen, *flags) as (server, _):
        assert lease_socket.exists() == (not flags)
        if not flags:
            assert stat.S_IMODE(lease_socket.stat().st_mode) == 0o640
        with PoolingClient(f"unix:{path}") as client:
            x = cases.normal(SHAPE)
            client.forward(x, MAX)
        server.terminate()
        assert server.wait(LIMIT_S) == 0
    assert list(path.parent.iterdir()) == []


# Below: callers that ask by hand.


class Lease:
    """A connection to a server's lease socket, and one region of 1 MiB."""

    def __init__(self, server: PoolingServer) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(LIMIT_S)
        self.socket.connect(server.addresses[0].removeprefix("unix:") + leases.SUFFIX)

    def ask(self, size: int) -> tuple[bytes, list[int]]:
        self.socket.send(leases.encode_size(size))
        packet, descriptors, _, _ = socket.recv_fds(self.socket, 64, 1)
        return packet, descriptors


@pytest.fixture
def lease(served: PoolingServer) -> Iterator[Lease]:
    lease = Lease(served)
    yield lease
    lease.socket.close()


def test_a_region_cannot_be_made_smaller_or_larger(lease: Lease) -> None:
    handle, (descriptor,) = lease.ask(MIB)
    assert len(handle) == leases.HANDLE_BYTES
    for size in (0, MIB - 1, MIB + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, size)
    os.close(descriptor)


@pytest.mark.parametrize("size", [0, 16 * MIB + 1, 1 << 62, (1 << 64) - 1])
def test_too_much_is_refused_and_the_next_lease_works(lease: Lease, size: int) -> None:
    assert lease.ask(size) == (leases.encode_size(16 * MIB), [])
    handle, descriptors = lease.ask(MIB)
    assert len(handle) == leases.HANDLE_BYTES
    os.close(descriptors[0])


@pytest.mark.parametrize("packet", [b"x", b"x" * 31, b"x" * 32, b"x" * 33, b"x" * 5000])
def test_nonsense_ends_the_lease(served: PoolingServer, lease: Lease, packet: bytes) -> None:
    os.close(lease.ask(MIB)[1][0])
    lease.socket.send(packet)
    assert lease.socket.recv(64) == b""
    wait_until(lambda: regions_of(served) == 0)


def test_nobody_gives_back_the_region_of_another(served: PoolingServer, lease: Lease) -> None:
    handle, descriptors = lease.ask(MIB)
    os.close(descriptors[0])
    other = Lease(served)
    other.socket.send(handle)
    assert other.socket.recv(64) == b""
    assert regions_of(served) == 1
    other.socket.close()


def test_handles_are_never_alike(lease: Lease) -> None:
    handles = set()
    for _ in range(8):
        handle, descriptors = lease.ask(MIB)
        os.close(descriptors[0])
        handles.add(handle)
    assert len(handles) == 8


class Crowded(socket.socket):
    """A listener of a process that has no descriptor left, for a while."""

    refused = 0

    def accept(self) -> tuple[socket.socket, object]:
        if self.refused < 3:
            self.refused += 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


def test_a_caller_waits_where_no_descriptor_is_left(path: Path) -> None:
    """And the thread that leases waits too: asked at once, the system says the same."""
    listener = Crowded(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(f"{path}{leases.SUFFIX}")
    listener.listen()
    memory = SharedMemory([listener], MIB, lambda _: None)
    memory.start()
    began = time.monotonic()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
        caller.settimeout(LIMIT_S)
        caller.connect(f"{path}{leases.SUFFIX}")
        caller.send(leases.encode_size(MIB))
        handle, descriptors, _, _ = socket.recv_fds(caller, 64, 1)
    os.close(descriptors[0])
    assert len(handle) == leases.HANDLE_BYTES
    assert time.monotonic() - began >= 0.3
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
INVALID, MISSING = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED
REFUSED = {
    "another handle": (lambda h: forward_request(b"y" * 32), "input.shared"),
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
    "indices not asked for": (
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


@pytest.mark.parametrize("name", REFUSED)
def test_places_that_are_not_the_callers_are_refused(
    served: PoolingServer, lease: Lease, name: str
) -> None:
    make, field = REFUSED[name]
    handle, descriptors = lease.ask(MIB)
    os.close(descriptors[0])
    with grpc.insecure_channel(served.addresses[0]) as channel:
        stub = pooling_pb2_grpc.PoolingServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refusal:
            stub.Forward(make(handle), timeout=LIMIT_S)
        assert refusal.value.code() is INVALID, refusal.value.details()
        assert field in refusal.value.details()
        assert handle.hex() not in str(refusal.value)
        assert repr(handle) not in str(refusal.value)
        reply = stub.Forward(forward_request(handle), timeout=LIMIT_S)  # the next call works
        assert len(reply.output.data) == INPUT_BYTES // 4


def test_data_beside_a_place_is_refused(served: PoolingServer, lease: Lease) -> None:
    handle, descriptors = lease.ask(MIB)
    os.close(descriptors[0])
    request = forward_request(handle)
    request.input.data = bytes(INPUT_BYTES)
    with grpc.insecure_channel(served.addresses[0]) as channel:
        with pytest.raises(grpc.RpcError) as refusal:
            pooling_pb2_grpc.PoolingServiceStub(channel).Forward(request, timeout=LIMIT_S)
        assert refusal.value.code() is INVALID


def test_a_handle_is_worth_nothing_over_tcp_or_on_a_stream(
    served: PoolingServer, lease: Lease
) -> None:
    handle, descriptors = lease.ask(MIB)
    os.close(descriptors[0])
    with grpc.insecure_channel(served.addresses[1]) as channel:
        with pytest.raises(grpc.RpcError) as refusal:
            pooling_pb2_grpc.PoolingServiceStub(channel).Forward(
                forward_request(handle), timeout=LIMIT_S
            )
        assert refusal.value.code() is MISSING
    with grpc.insecure_channel(served.addresses[0]) as channel:
        item = pb.ForwardStreamRequest(id=7, request=forward_request(handle))
        stub = pooling_pb2_grpc.PoolingServiceStub(channel)
        (reply,) = stub.ForwardStream(iter([item]), timeout=LIMIT_S)
        assert (reply.id, reply.error.reason) == (7, UnsupportedError.reason)


def test_a_place_ends_with_its_lease(served: PoolingServer, lease: Lease) -> None:
    handle, descriptors = lease.ask(MIB)
    os.close(descriptors[0])
    lease.socket.send(handle)
    wait_until(lambda: regions_of(served) == 0)
    with grpc.insecure_channel(served.addresses[0]) as channel:
        with pytest.raises(grpc.RpcError) as refusal:
            pooling_pb2_grpc.PoolingServiceStub(channel).Forward(
                forward_request(handle), timeout=LIMIT_S
            )
        assert refusal.value.code() is INVALID


def test_small_calls_are_sent(near: PoolingClient) -> None:
    x = cases.normal((1, 1, 16, 16))
    assert x.nbytes < SHARED_BYTES
    assert shared(near).place_of(near.forward(x, MAX).output) is None


def test_limits_count_for_shared_tensors(path: Path) -> None:
    config = ServerConfig(
        listen=f"unix:{path}", backend="numpy", warm_up=False, max_tensor_bytes=MIB
    )
    server = PoolingServer(config)
    server.start()
    try:
        with PoolingClient(server.address) as client, pytest.raises(TensorTooLargeError):
            client.forward(cases.normal((1, 1, 600, 600)), PoolSpec("max", global_window=True))
    finally:
        server.stop()
