"""Shared memory over a Unix socket: bit-identical results, and no access to other memory."""

from __future__ import annotations

import gc
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pooling_engine
from pooling_client import PoolingClient
from pooling_client._shared_memory import SHARED_BYTES
from pooling_client._transports.sync import GrpcTransport
from pooling_engine import DeadlineError, PoolSpec, TensorTooLargeError
from pooling_server import PoolingServer, ServerConfig
from pooling_wire import FORWARD, Method
from pooling_wire.shared_memory import LEASE_SUFFIX
from tests.server.support import Gate, wait_for_regions
from tests.support import cases, oracle
from tests.support.processes import process
from tests.support.waiting import LIMIT_S, wait_until

MIB = 1 << 20
SHAPE = (4, 64, 56, 56)  # 3 MiB
MAX = PoolSpec("max", 2)


@pytest.fixture
def near(unix_server: PoolingServer) -> Iterator[PoolingClient]:
    with PoolingClient(unix_server.addresses[0]) as client:
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


@pytest.fixture
def unary(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the methods of the unary calls of blocking clients."""
    methods: list[str] = []
    send = GrpcTransport.send

    def sending(self: GrpcTransport, method: str, *arguments: Any) -> bytes:
        methods.append(method)
        return send(self, method, *arguments)

    monkeypatch.setattr(GrpcTransport, "send", sending)
    return methods


def assert_forward(client: PoolingClient, seed: int = 0) -> None:
    x = cases.normal(SHAPE) + np.float32(seed)
    got = client.forward(x, MAX, timeout=LIMIT_S).output
    assert is_shared(got)
    oracle.assert_same_bits(got, pooling_engine.forward(x, MAX).output)


def test_frequent_calls_share_a_stream(near: PoolingClient, unary: list[str]) -> None:
    for seed in range(3):
        assert_forward(near, seed)
    assert unary == [FORWARD.path]  # a call alone opens no stream


def test_a_call_beside_another_one_is_unary(
    near: PoolingClient, unary: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        assert_forward(near)
    gate = Gate()
    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as callers:
        patch.setattr(pooling_engine, "run", gate)
        x = cases.normal(SHAPE)
        calls = [callers.submit(near.forward, x, MAX, timeout=LIMIT_S)]
        gate.wait_entered()
        calls.append(callers.submit(near.forward, x, MAX, timeout=LIMIT_S))
        wait_until(lambda: len(unary) == 2)  # it may wait for a compute slot, but on no stream
        gate.open()
        results = [call.result().output for call in calls]
    for result in results:
        oracle.assert_same_bits(result, pooling_engine.forward(x, MAX).output)
    assert unary == [FORWARD.path] * 2


def test_a_late_call_in_shared_memory_fails_and_the_next_succeeds(
    near: PoolingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        assert_forward(near)
    gate = Gate()
    with monkeypatch.context() as patch:
        patch.setattr(pooling_engine, "run", gate)
        with pytest.raises(DeadlineError):
            near.forward(cases.normal(SHAPE), MAX, timeout=0.1)
        gate.open()
    assert_forward(near)


def test_a_call_whose_stream_ends_gets_results_outside_shared_memory(
    near: PoolingClient, unary: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may still compute the item, so its memory is not used again."""
    for _ in range(2):
        assert_forward(near)
    gate, x = Gate(), cases.normal(SHAPE)
    with monkeypatch.context() as patch, ThreadPoolExecutor(1) as callers:
        patch.setattr(pooling_engine, "run", gate)
        call = callers.submit(near.forward, x, MAX, timeout=LIMIT_S)
        gate.wait_entered()
        (shared,) = near._transport._shared
        for stream in list(shared._streams.values()):
            stream._stream.cancel()
        wait_until(lambda: len(unary) == 2)
        gate.open()
        got = call.result().output
    assert not is_shared(got)
    oracle.assert_same_bits(got, pooling_engine.forward(x, MAX).output)


def test_a_server_without_places_in_streams_gets_unary_calls(
    near: PoolingClient, unary: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = Method.decode_item
    monkeypatch.setattr(Method, "decode_item", lambda method, data, _: decode(method, data))
    for seed in range(4):
        assert_forward(near, seed)
    assert unary == [FORWARD.path] * 4
    assert not near._session.places_items


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


def test_over_tcp_nothing_is_shared(unix_server: PoolingServer) -> None:
    with PoolingClient(unix_server.addresses[1]) as client:
        array = client.empty((300, 200), "float64")
        assert array.shape == (300, 200)
        assert not is_shared(array)
        x = cases.normal(SHAPE)
        oracle.assert_same_bits(
            client.forward(x, MAX).output, pooling_engine.forward(x, MAX).output
        )


def test_a_lease_ends_with_its_client(unix_server: PoolingServer) -> None:
    with PoolingClient(unix_server.addresses[0]) as client:
        client.forward(cases.normal(SHAPE), MAX)
        assert unix_server.shared_memory.region_count == 2
    memory = unix_server.shared_memory
    wait_until(lambda: memory.free_bytes == 16 * MIB, "the lease does not end")
    assert memory.region_count == 0


def test_a_killed_client_leaves_no_region(unix_server: PoolingServer) -> None:
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
        [sys.executable, "-c", code, unix_server.addresses[0]], stdout=subprocess.PIPE, text=True
    )
    assert client.stdout is not None
    assert client.stdout.readline() == "leased\n"
    assert unix_server.shared_memory.region_count == 1
    client.send_signal(signal.SIGKILL)
    client.communicate(timeout=LIMIT_S)
    wait_for_regions(unix_server, 0)
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
    lease_socket = Path(f"{socket_path}{LEASE_SUFFIX}")
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
