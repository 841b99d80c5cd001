"""Pinned memory: leased regions that the GPU accesses directly while they are mapped.

The fake CuPy fails a test that unpins memory which is not pinned, is not mapped any more, or is
used by an unfinished copy.
"""

from __future__ import annotations

import gc
import mmap
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike

from pooling_client import PoolingClient
from pooling_engine import (
    ForwardCall,
    InvalidTensorError,
    PoolSpec,
    backward,
    forward,
    run,
)
from pooling_engine.backends.cupy_backend.backend import CupyBackend
from pooling_engine.backends.cupy_backend.device.cupy_device import CupyStagingBuffer
from pooling_engine.backends.cupy_backend.transfers import staging
from pooling_server import PoolingServer, ServerConfig
from tests.gpu.servers import server_process
from tests.gpu.support import KINDS, Array, UseBackend
from tests.support import cases, oracle
from tests.support.waiting import LIMIT_S, wait_until

MIB = 1 << 20
MAX = PoolSpec("max", 2)
SHAPE = (1, 40, 64, 64)  # 640 KiB
BUFFER = 256 << 10  # bytes: smaller than the array


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of every copy that the host makes between arrays and staging buffers."""
    sizes: list[int] = []
    copy = staging.copy_bytes

    def counted_copy(source: Array, target: Array) -> None:
        sizes.append(source.size)
        copy(source, target)

    monkeypatch.setattr(staging, "copy_bytes", counted_copy)
    return sizes


@pytest.fixture
def use(use_backend: UseBackend, monkeypatch: pytest.MonkeyPatch) -> UseBackend:
    """As `use_backend`, but pinned arrays of any size are used in place."""
    monkeypatch.setattr(staging, "MIN_PINNED_BYTES", 1)
    return use_backend


class Region:
    """Pinned memory such as a server leases, and arrays in it."""

    def __init__(self, backend: CupyBackend) -> None:
        self.memory = np.frombuffer(mmap.mmap(-1, 16 * MIB), np.uint8)
        unpin = backend.pin(self.memory)
        assert unpin is not None
        self.unpin = unpin
        self._end = 0

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> Array:
        begin = self._end
        self._end += int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self.memory[begin : self._end].view(dtype).reshape(shape)

    def copy_of(self, array: Array) -> Array:
        own = self.empty(array.shape, array.dtype)
        own[...] = array
        return own


@contextmanager
def region_of(backend: CupyBackend) -> Iterator[Region]:
    region = Region(backend)
    yield region
    region.unpin()


def assert_pinned_once(cuda: ModuleType) -> None:
    """Check that every region was pinned and unpinned in turns, and is unpinned now."""
    gc.collect()
    states: dict[int, tuple[str, int]] = {}
    for what, address, nbytes in cuda.REGISTERED:
        expected = "unpin" if states.get(address) == ("pin", nbytes) else "pin"
        assert what == expected
        states[address] = what, nbytes
    assert states
    assert {what for what, _ in states.values()} == {"unpin"}


@pytest.mark.parametrize("given", [(True, True), (True, False), (False, True)], ids=str)
@pytest.mark.parametrize("buffer_bytes", [BUFFER, 16 << 10], ids=["chunks", "segments"])
@pytest.mark.parametrize("options", KINDS, ids=cases.name_of)
def test_results_are_bit_identical_to_those_of_ordinary_arrays(
    use: UseBackend,
    copied: list[int],
    options: dict[str, Any],
    buffer_bytes: int,
    given: tuple[bool, bool],
) -> None:
    backend = use(buffer_bytes)
    spec, x = PoolSpec(**options), cases.to_layout(options, cases.normal((3, 40, 32, 40)))
    selects = options["mode"] in ("max", "min")
    theirs = forward(x, spec, return_indices=selects, backend="numpy")
    if "tie_policy" in options or options["mode"] == "lp":
        residual: dict[str, Any] = {"input": x}
    else:
        residual = {"indices": theirs.indices} if selects else {}
    residual["input_shape"] = x.shape
    expected = backward(theirs.output, spec, backend="numpy", **residual)
    with region_of(backend) as region:
        take, room = (
            region.copy_of if given[0] else np.asarray,
            region.empty if given[1] else np.empty,
        )
        call = ForwardCall(take(x), spec, return_indices=selects)
        results = {name: room(*made) for name, made in call.result_specs.items()}
        ours = run(call, results, backend="cupy")
        oracle.assert_same_bits(ours.output, theirs.output)
        if selects:
            oracle.assert_same_bits(ours.indices, theirs.indices)
        for name in {"input", "indices"} & set(residual):
            residual[name] = take(residual[name])
        dx = room(x.shape, np.float32)
        backward(take(theirs.output), spec, backend="cupy", out=dx, **residual)
        oracle.assert_same_bits(dx, expected)
    if all(given):
        assert copied == [], "the host copies nothing"


def test_copies_of_several_buffers_overlap(
    use: UseBackend, cuda: ModuleType, copied: list[int]
) -> None:
    backend = use(BUFFER)
    with region_of(backend) as region:
        x, out = region.copy_of(cases.normal(SHAPE)), region.empty((1, 40, 32, 32))
        forward(x, MAX, out=out, backend="cupy")  # allocates the buffers
        cuda.EVENTS.clear()
        forward(x, MAX, out=out, backend="cupy")
        oracle.assert_same_bits(out, forward(x, MAX, backend="numpy").output)
    chunk = ["upload", "launch", "download"]
    assert [what for _, what in cuda.EVENTS[:10]] == [*chunk, *chunk, *chunk, "wait"]
    assert len({stream for stream, _ in cuda.EVENTS[:9]}) == 3
    assert copied == []


def test_the_host_copies_only_arrays_that_are_not_pinned(
    use: UseBackend, cuda: ModuleType, copied: list[int]
) -> None:
    backend = use(16 * MIB)
    x = cases.normal(SHAPE)
    with region_of(backend) as region:
        own, out = region.copy_of(x), region.empty((1, 40, 32, 32))
        for source, target, sizes in (
            (own, np.empty_like(out), [out.nbytes]),
            (x, out, [x.nbytes]),
            (x, np.empty_like(out), [x.nbytes, out.nbytes]),
        ):
            copied.clear()
            cuda.EVENTS.clear()
            forward(source, MAX, out=target, backend="cupy")
            assert copied == sizes
            assert [what for _, what in cuda.EVENTS] == ["upload", "launch", "download", "wait"]


def test_small_pinned_arrays_share_one_copy(use_backend: UseBackend, cuda: ModuleType) -> None:
    backend = use_backend(BUFFER)
    with region_of(backend) as region:
        dy, taps = (
            region.copy_of(np.ones((1, 2, 8, 8), np.float32)),
            region.empty((1, 2, 8, 8), "u1"),
        )
        taps[...] = 1
        backward(dy, MAX, input_shape=(1, 2, 16, 16), indices=taps, backend="cupy")
    assert [what for _, what in cuda.EVENTS].count("upload") == 1


def test_the_error_flag_is_read_where_nothing_else_is_copied(
    use: UseBackend, copied: list[int]
) -> None:
    backend = use(BUFFER)
    x, spec = cases.normal(SHAPE), PoolSpec("max", 2, nan_policy="error")
    with region_of(backend) as region:
        own, out = region.copy_of(x), region.empty((1, 40, 32, 32))
        taps, dx = region.empty((1, 40, 32, 32), np.uint8), region.empty(SHAPE)
        call, results = ForwardCall(own, spec, True), {"output": out, "indices": taps}
        run(call, results, backend="cupy")
        backward(out, MAX, input_shape=SHAPE, indices=taps, out=dx, backend="cupy")
        own[0, -1, -1, -1] = np.nan
        with pytest.raises(InvalidTensorError, match='nan_policy "error" rejects it'):
            run(call, results, backend="cupy")
        taps[0, -1, 3, 2] = 200
        with pytest.raises(InvalidTensorError, match="200"):
            backward(out, MAX, input_shape=SHAPE, indices=taps, out=dx, backend="cupy")
    assert copied == []


def test_an_array_partly_outside_a_region_is_not_pinned(use: UseBackend) -> None:
    backend = use(BUFFER)
    memory = np.frombuffer(mmap.mmap(-1, 4 * MIB), np.uint8)
    unpin = backend.pin(memory[: 2 * MIB])
    assert unpin is not None
    for begin, is_pinned in ((0, True), (MIB, True), (MIB + 1, False), (2 * MIB, False)):
        assert backend.device.is_pinned(memory[begin : begin + MIB]) == is_pinned
    x = memory[2 * MIB - 1000 :][: 4 * 40 * 64 * 64].view(np.float32).reshape(SHAPE)
    oracle.assert_same_bits(
        forward(x, MAX, backend="cupy").output, forward(x, MAX, backend="numpy").output
    )
    unpin()
    assert not backend.device.is_pinned(memory[:MIB])


def test_after_a_failure_no_copy_is_unfinished(
    use: UseBackend, cuda: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = use(BUFFER)
    x = cases.normal(SHAPE)
    with region_of(backend) as region:
        own, out = region.copy_of(x), region.empty((1, 40, 32, 32))
        kernel, left = backend.device.kernel, iter((True, True, False))
        with monkeypatch.context() as patch:
            patch.setattr(backend.device, "kernel", lambda launch: next(left) and kernel(launch))
            with pytest.raises(TypeError, match="'bool' object is not callable"):
                forward(own, MAX, out=out, backend="cupy")
        assert not cuda.UNDER_WAY
        forward(own, MAX, out=out, backend="cupy")
        oracle.assert_same_bits(out, forward(x, MAX, backend="numpy").output)


def test_the_fake_detects_memory_that_is_unpinned_too_early(use: UseBackend) -> None:
    backend = use(BUFFER)
    region, buffer = Region(backend), backend.device.staging_buffer(BUFFER)
    buffer.upload(region.memory.ctypes.data, buffer.device_address, 100)
    with pytest.raises(AssertionError, match="a copy is under way"):
        region.unpin()
    buffer.wait()


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pooling-") as folder:
        yield Path(folder) / "s"


@pytest.fixture
def served(path: Path, cuda: ModuleType, every_kernel: None) -> Iterator[PoolingServer]:
    """A server in this process on a Unix socket."""
    config = ServerConfig(listen=f"unix:{path}", backend="cupy", warm_up=False)
    server = PoolingServer(config)
    server.start()
    yield server
    assert server.stop()


def test_a_region_is_pinned_while_it_is_leased(
    served: PoolingServer, cuda: ModuleType, copied: list[int]
) -> None:
    x = cases.normal((4, 64, 56, 56))
    expected = forward(x, MAX, backend="numpy").output
    with PoolingClient(served.address) as client:
        own = client.empty(x.shape)
        own[...] = x
        for _ in range(3):
            oracle.assert_same_bits(client.forward(own, MAX).output, expected)
        assert [what for what, _, _ in cuda.REGISTERED] == ["pin", "pin"]
        assert copied == []
    served.stop()
    assert_pinned_once(cuda)


def test_a_call_in_flight_keeps_its_region_pinned(
    served: PoolingServer, cuda: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease ends before its copies do."""
    x = cases.normal((4, 64, 56, 56))
    wait = CupyStagingBuffer.wait
    pinned: list[list[str]] = []

    def end_and_wait(buffer: CupyStagingBuffer) -> None:
        client._shared_memory.arrays().close()
        wait_until(lambda: served.shared_memory.region_count == 0)
        gc.collect()
        pinned.append([what for what, _, _ in cuda.REGISTERED])
        wait(buffer)

    with PoolingClient(served.address) as client:
        own = client.empty(x.shape)
        own[...] = x
        with monkeypatch.context() as patch:
            patch.setattr(CupyStagingBuffer, "wait", end_and_wait)
            output = client.forward(own, MAX).output
        oracle.assert_same_bits(output, forward(x, MAX, backend="numpy").output)
    assert pinned[0] == ["pin", "pin"]
    assert_pinned_once(cuda)


def test_leases_that_end_under_load(served: PoolingServer, cuda: ModuleType) -> None:
    """Clients close their shared memory while their calls are computed."""
    x = cases.normal((4, 16, 56, 56))
    expected = forward(x, MAX, backend="numpy").output

    def call(number: int) -> Iterator[bool]:
        with PoolingClient(served.address) as client, ThreadPoolExecutor(2) as pool:
            own = client.empty(x.shape)
            own[...] = x
            calls = [pool.submit(client.forward, own, MAX) for _ in range(3)]
            if number % 4:
                time.sleep(0.002 * number)  # varies which copies the end of the lease meets
            else:  # so that some calls succeed on a busy machine as well
                calls[0].exception()
            client._shared_memory.arrays().close()
            for each in calls:
                if (error := each.exception()) is None:
                    oracle.assert_same_bits(each.result().output, expected)
                else:
                    assert "no lease of shared memory has this handle" in str(error)
                yield error is None

    with ThreadPoolExecutor(4) as pool:
        answered = list(pool.map(lambda number: list(call(number)), range(16)))
    assert any(map(any, answered))
    assert served.stop()
    assert_pinned_once(cuda)


def test_a_region_that_cannot_be_pinned_is_copied(
    served: PoolingServer,
    fault: Path,
    cuda: ModuleType,
    copied: list[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    fault.write_text("no pinning")
    x = cases.normal((4, 64, 56, 56))
    with PoolingClient(served.address) as client:
        own = client.empty(x.shape)
        own[...] = x
        for _ in range(2):
            oracle.assert_same_bits(
                client.forward(own, MAX).output, forward(x, MAX, backend="numpy").output
            )
    assert cuda.REGISTERED == []
    assert copied
    assert [record.getMessage() for record in caplog.records if "cannot pin" in record.message] == [
        f"cannot pin {nbytes} bytes of shared memory, tensors in it are copied instead: "
        "cudaError1: requested by the test"
        for nbytes in (49 << 16, 13 << 16)
    ]


def test_each_process_pins_its_own_mapping(fault: Path, path: Path) -> None:
    """Each of two servers logs its own failure."""
    fault.write_text("no pinning")
    x = cases.normal((4, 64, 56, 56))
    listen = [f"unix:{path}{number}" for number in range(2)]
    first, second = (server_process("--listen", each, fault=fault) for each in listen)
    with first as (one, _), second as (other, _):
        with PoolingClient(listen[0]) as near, PoolingClient(listen[1]) as far:
            expected = forward(x, MAX, backend="numpy").output
            for client in (near, far, near):
                oracle.assert_same_bits(client.forward(x, MAX).output, expected)
        for server in (one, other):
            server.terminate()
            _, err = server.communicate(timeout=LIMIT_S)
            assert server.returncode == 0
            assert err.count("cannot pin") == 2, err


def test_a_process_that_leased_memory_exits_when_its_gpu_hangs(fault: Path, path: Path) -> None:
    listen = f"unix:{path}"
    flags = "--listen", listen, "--device-watch-s", "0.2"
    with server_process(*flags, fault=fault) as (server, _), PoolingClient(listen) as client:
        client.forward(cases.normal((4, 64, 56, 56)), MAX)
        fault.write_text("hang")
        out, err = server.communicate(timeout=LIMIT_S)
    assert (server.returncode, out) == (1, "")
    assert "the device is lost (no answer for 1.2 s)" in err
    assert not list(path.parent.iterdir())
