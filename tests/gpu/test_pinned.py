"""Memory that the card reaches by itself: leased regions, pinned while they are mapped.

`fakes/` stands in for CuPy: it ends a test that unpins what is not pinned, is not mapped any more,
or is used by a copy that is under way.
"""

from __future__ import annotations

import gc
import mmap
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from pooling_client import PoolingClient
from pooling_engine import (
    ForwardCall,
    InvalidTensorError,
    PoolSpec,
    backward,
    forward,
    run,
)
from pooling_engine.backends import override
from pooling_engine.backends.cupy_backend import backend as cupy_backend
from pooling_engine.backends.cupy_backend.device.cupy_device import CupyDevice, CupyStagingBuffer
from pooling_engine.backends.cupy_backend.transfers import staging
from pooling_server import PoolingServer, ServerConfig
from tests.gpu.test_serving import processes
from tests.gpu.test_staging import KINDS
from tests.support import cases, oracle
from tests.support.waiting import LIMIT_S, wait_until

MIB = 1 << 20
MAX = PoolSpec("max", 2)
SHAPE = (1, 40, 64, 64)  # 640 KiB
LANE = 256 << 10


@pytest.fixture
def cuda(fault):
    from cupy import cuda

    return cuda


@pytest.fixture
def copied(monkeypatch):
    """The bytes of every copy that the host makes between arrays and lanes."""
    sizes, copy = [], staging._copy
    monkeypatch.setattr(staging, "_copy", lambda *a: sizes.append(a[0].size) or copy(*a))
    return sizes


@pytest.fixture
def use(cuda, every_kernel, monkeypatch):
    """Makes "cupy" a backend whose lanes have so many bytes."""

    def use(lane_bytes):
        backend = cupy_backend.CupyBackend(CupyDevice(), lane_bytes)
        stack.enter_context(override("cupy", backend))
        monkeypatch.setattr(staging, "MIN_PINNED_BYTES", 1)
        return backend

    with ExitStack() as stack:
        yield use


class Region:
    """Memory as a server leases it, and arrays in it."""

    def __init__(self, backend, nbytes=16 * MIB):
        self.memory = np.frombuffer(mmap.mmap(-1, nbytes), np.uint8)
        self.unpin = backend.pin(self.memory)
        self._end = 0

    def empty(self, shape, dtype=np.float32):
        begin = self._end
        self._end += int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self.memory[begin : self._end].view(dtype).reshape(shape)

    def with_(self, array):
        own = self.empty(array.shape, array.dtype)
        own[...] = array
        return own


@contextmanager
def region_of(backend):
    region = Region(backend)
    yield region
    region.unpin()


def assert_pinned_once(cuda):
    """What was pinned was unpinned, each time."""
    gc.collect()
    states = {}
    for what, address, nbytes in cuda.REGISTERED:
        expected = "unpin" if states.get(address) == ("pin", nbytes) else "pin"
        assert what == expected
        states[address] = what, nbytes
    assert states
    assert {what for what, _ in states.values()} == {"unpin"}


@pytest.mark.parametrize("given", [(True, True), (True, False), (False, True)], ids=str)
@pytest.mark.parametrize("lane_bytes", [LANE, 16 << 10], ids=["slabs", "larger than a lane"])
@pytest.mark.parametrize("options", KINDS, ids=cases.name_of)
def test_the_bits_are_those_of_arrays_anywhere(use, copied, options, lane_bytes, given):
    backend = use(lane_bytes)
    spec, x = PoolSpec(**options), cases.to_layout(options, cases.normal((3, 40, 32, 40)))
    selects = options["mode"] in ("max", "min")
    theirs = forward(x, spec, return_indices=selects, backend="numpy")
    if "tie_policy" in options or options["mode"] == "lp":
        residual = {"input": x}
    else:
        residual = {"indices": theirs.indices} if selects else {}
    residual["input_shape"] = x.shape
    expected = backward(theirs.output, spec, backend="numpy", **residual)
    with region_of(backend) as region:
        take, room = (
            region.with_ if given[0] else np.asarray,
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


def test_copies_of_several_lanes_overlap(use, cuda, copied):
    backend = use(LANE)
    with region_of(backend) as region:
        x, out = region.with_(cases.normal(SHAPE)), region.empty((1, 40, 32, 32))
        forward(x, MAX, out=out, backend="cupy")  # makes the lanes
        cuda.EVENTS.clear()
        forward(x, MAX, out=out, backend="cupy")
        oracle.assert_same_bits(out, forward(x, MAX, backend="numpy").output)
    slab = ["upload", "launch", "download"]
    assert [what for _, what in cuda.EVENTS[:10]] == [*slab, *slab, *slab, "wait"]
    assert len({stream for stream, _ in cuda.EVENTS[:9]}) == 3
    assert copied == []


def test_only_one_side_of_a_slab_is_copied_where_only_the_other_is_pinned(use, cuda, copied):
    backend = use(16 * MIB)
    x = cases.normal(SHAPE)
    with region_of(backend) as region:
        own, out = region.with_(x), region.empty((1, 40, 32, 32))
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


def test_small_arrays_share_a_copy_wherever_they_are(use, monkeypatch, cuda):
    backend = use(LANE)
    monkeypatch.setattr(staging, "MIN_PINNED_BYTES", 256 << 10)
    with region_of(backend) as region:
        dy, taps = region.with_(np.ones((1, 2, 8, 8), np.float32)), region.empty((1, 2, 8, 8), "u1")
        taps[...] = 1
        backward(dy, MAX, input_shape=(1, 2, 16, 16), indices=taps, backend="cupy")
    assert [what for _, what in cuda.EVENTS].count("upload") == 1


def test_marks_are_found_where_nothing_else_is_copied(use, copied):
    backend = use(LANE)
    x, spec = cases.normal(SHAPE), PoolSpec("max", 2, nan_policy="error")
    with region_of(backend) as region:
        own, out = region.with_(x), region.empty((1, 40, 32, 32))
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


def test_an_array_beyond_a_region_is_like_any(use):
    backend = use(LANE)
    memory = np.frombuffer(mmap.mmap(-1, 4 * MIB), np.uint8)
    unpin = backend.pin(memory[: 2 * MIB])
    for begin, is_pinned in ((0, True), (MIB, True), (MIB + 1, False), (2 * MIB, False)):
        assert backend.device.is_pinned(memory[begin : begin + MIB]) == is_pinned
    x = memory[2 * MIB - 1000 :][: 4 * 40 * 64 * 64].view(np.float32).reshape(SHAPE)
    oracle.assert_same_bits(
        forward(x, MAX, backend="cupy").output, forward(x, MAX, backend="numpy").output
    )
    unpin()
    assert not backend.device.is_pinned(memory[:MIB])


def test_a_failure_leaves_nothing_under_way(use, cuda, monkeypatch):
    backend = use(LANE)
    x = cases.normal(SHAPE)
    with region_of(backend) as region:
        own, out = region.with_(x), region.empty((1, 40, 32, 32))
        kernel, left = backend.device.kernel, iter((True, True, False))
        with monkeypatch.context() as patch:
            patch.setattr(backend.device, "kernel", lambda launch: next(left) and kernel(launch))
            with pytest.raises(TypeError, match="'bool' object is not callable"):
                forward(own, MAX, out=out, backend="cupy")
        assert not cuda.UNDER_WAY
        forward(own, MAX, out=out, backend="cupy")
        oracle.assert_same_bits(out, forward(x, MAX, backend="numpy").output)


def test_the_stand_in_finds_memory_that_is_unpinned_too_early(use, cuda):
    backend = use(LANE)
    region, lane = Region(backend), backend.device.staging_buffer(LANE)
    lane.upload(region.memory.ctypes.data, lane.device_address, 100)
    with pytest.raises(AssertionError, match="a copy is under way"):
        region.unpin()
    lane.wait()


# Below: servers.


@pytest.fixture
def path():
    with tempfile.TemporaryDirectory(prefix="pooling-") as folder:
        yield Path(folder) / "s"


@pytest.fixture
def served(path, cuda, every_kernel):
    config = ServerConfig(listen=f"unix:{path}", backend="cupy", warm_up=False)
    server = PoolingServer(config)
    server.start()
    yield server
    assert server.stop()


def test_a_region_is_pinned_while_it_is_leased(served, cuda, copied):
    x = cases.normal((4, 64, 56, 56))
    expected = forward(x, MAX, backend="numpy").output
    with PoolingClient(served.address) as client:
        own = client.empty(x.shape)
        own[...] = x
        for _ in range(3):
            oracle.assert_same_bits(client.forward(own, MAX).output, expected)
        assert [what for what, _, _ in cuda.REGISTERED] == ["pin", "pin"]
        assert copied == [], "neither of the region nor into it"
    served.stop()
    assert_pinned_once(cuda)


def test_a_call_in_flight_keeps_its_region_pinned(served, cuda, monkeypatch):
    """Its lease ends while copies are under way."""
    x = cases.normal((4, 64, 56, 56))
    wait, pinned = CupyStagingBuffer.wait, []

    def end_and_wait(lane):
        client._shared_memory.arrays().close()
        wait_until(lambda: served.shared_memory.region_count == 0)
        gc.collect()
        pinned.append([what for what, _, _ in cuda.REGISTERED])
        wait(lane)

    with PoolingClient(served.address) as client:
        own = client.empty(x.shape)
        own[...] = x
        with monkeypatch.context() as patch:
            patch.setattr(CupyStagingBuffer, "wait", end_and_wait)
            output = client.forward(own, MAX).output
        oracle.assert_same_bits(output, forward(x, MAX, backend="numpy").output)
    assert pinned[0] == ["pin", "pin"]
    assert_pinned_once(cuda)


def test_regions_given_up_under_load(served, cuda):
    """Clients come and go while their calls are computed."""
    x = cases.normal((4, 16, 56, 56))
    expected = forward(x, MAX, backend="numpy").output

    def call(number):
        with PoolingClient(served.address) as client, ThreadPoolExecutor(2) as pool:
            own = client.empty(x.shape)
            own[...] = x
            calls = [pool.submit(client.forward, own, MAX) for _ in range(3)]
            if number % 4:
                time.sleep(0.002 * number)
            else:  # however busy the machine is, some are answered
                calls[0].exception()
            client._shared_memory.arrays().close()
            for each in calls:
                if (refusal := each.exception()) is None:
                    oracle.assert_same_bits(each.result().output, expected)
                else:
                    assert "no lease of shared memory has this handle" in str(refusal)
                yield refusal is None

    with ThreadPoolExecutor(4) as pool:
        answered = list(pool.map(lambda number: list(call(number)), range(16)))
    assert any(map(any, answered))
    assert served.stop()
    assert_pinned_once(cuda)


def test_what_cannot_be_pinned_is_copied_as_ever(served, fault, cuda, copied, caplog):
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


def test_each_process_pins_its_own_mapping(fault, path):
    """Two servers at once: each tries by itself, as its log says."""
    fault.write_text("no pinning")
    x = cases.normal((4, 64, 56, 56))
    listen = [f"unix:{path}{number}" for number in range(2)]
    first, second = (processes("--listen", each, fault=fault) for each in listen)
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


def test_a_card_that_hangs_does_not_keep_a_process_that_leased_memory(fault, path):
    listen = f"unix:{path}"
    flags = "--listen", listen, "--device-watch-s", "0.2"
    with processes(*flags, fault=fault) as (server, _), PoolingClient(listen) as client:
        client.forward(cases.normal((4, 64, 56, 56)), MAX)
        fault.write_text("hang")
        out, err = server.communicate(timeout=LIMIT_S)
    assert (server.returncode, out) == (1, "")
    assert "the device is lost (no answer for 1.2 s)" in err
    assert not list(path.parent.iterdir())
