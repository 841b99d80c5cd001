"""Planes larger than a lane: their arrays go to the card in pieces, through lanes.

As in `test_staging.py`, `fakes/` stands in for CuPy.
"""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pooling_engine import DeviceMemoryError, PoolSpec, backward, forward
from pooling_engine.backends import override
from pooling_engine.backends.cupy_backend import backend as cupy_backend
from pooling_engine.backends.cupy_backend.device.cupy_device import CupyDevice
from pooling_engine.backends.cupy_backend.transfers import staging
from pooling_engine.backends.cupy_backend.transfers.buffers import BUFFERS_PER_CALL
from tests.gpu.test_staging import KINDS, memory_of
from tests.support import cases, oracle, pairs, palettes

LANE, PIECE = 3 << 10, 2 << 10
SHAPE = (1, 2, 40, 36)  # a plane of 5.6 KiB in float32
MAX = PoolSpec("max", 2)


@pytest.fixture
def backend(fault, every_kernel, monkeypatch):
    """A backend, "cupy" as well, whose lanes are small, and pieces smaller."""
    monkeypatch.setattr(staging, "SEGMENT_BYTES", PIECE)
    backend = cupy_backend.CupyBackend(CupyDevice(), LANE)
    with override("cupy", backend):
        yield backend


@pytest.fixture
def events(backend):
    from cupy import cuda

    cuda.EVENTS.clear()
    return cuda.EVENTS


@pytest.mark.parametrize("dtype", palettes.DTYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("options", KINDS, ids=cases.name_of)
def test_the_bits_are_those_of_the_processor(backend, events, options, dtype):
    x = cases.normal((2, 3, 40, 46), dtype)
    pairs.assert_same_calls("cupy", options, x, cases.normal, 1)
    assert len({stream for stream, what in events if what == "upload"}) > 1, "in pieces"


@pytest.mark.parametrize("seed", range(8))
def test_a_card_works_when_it_likes(backend, monkeypatch, seed):
    from cupy import cuda

    monkeypatch.setattr(cuda, "CHANCE", random.Random(seed))
    options = {"mode": "max", "kernel": 2, "nan_policy": "error"}
    pairs.assert_same_calls("cupy", options, cases.normal(SHAPE), cases.normal, seed)


@pytest.mark.parametrize("nbytes", [1, PIECE, PIECE + 1, 3 * PIECE, 4 * PIECE - 1, 5 * PIECE])
def test_pieces_of_any_number_there_and_back(backend, nbytes):
    array = cases.integers((nbytes,), "uint8")
    there = backend.to_device(array)
    assert bytes(there._memory) == array.tobytes()
    assert backend.to_host(there).tobytes() == array.tobytes()


def test_pieces_overlap_and_the_kernel_waits_for_all(backend, events):
    x = cases.normal(SHAPE)
    forward(x, MAX, backend="cupy")  # makes the lanes
    events.clear()
    forward(x, MAX, backend="cupy")
    kinds = [what for _, what in events]
    pieces = -(-x.nbytes // PIECE)
    assert pieces > BUFFERS_PER_CALL
    assert kinds[: kinds.index("upload") + 4] == ["wait", "upload", "upload", "upload", "wait"]
    before = events[: kinds.index("launch")]
    carried = [stream for stream, what in before if what == "upload"]
    assert len(carried) == pieces
    assert len(set(carried)) == BUFFERS_PER_CALL
    for stream in set(carried):
        own = [what for lane, what in before if lane == stream]
        assert own == ["upload", "wait"] * (len(own) // 2), "each is awaited, also the last"
    after = kinds[kinds.index("launch") :]
    assert after[:4] == ["launch", "wait", "download", "download"]
    assert after[-1] == "wait"


def test_who_does_not_wait_is_found(backend, events, monkeypatch):
    """That the stand-in finds what these tests are for."""
    x = cases.normal(SHAPE)
    monkeypatch.setattr(
        "pooling_engine.backends.cupy_backend.device.cupy_device.CupyStagingBuffer.wait",
        lambda _: None,
    )
    ours, theirs = (forward(x, MAX, backend=name).output for name in ("cupy", "numpy"))
    assert not np.array_equal(ours, theirs)


def test_many_threads(backend):
    x = [cases.normal(SHAPE, seed=seed) for seed in range(12)]
    with ThreadPoolExecutor(6) as pool:
        outputs = list(pool.map(lambda x: forward(x, MAX, backend="cupy").output, x))
    for given, output in zip(x, outputs, strict=True):
        oracle.assert_same_bits(output, forward(given, MAX, backend="numpy").output)


def test_a_forged_index_is_found_in_the_last_plane(backend):
    x = cases.normal(SHAPE)
    output, indices = forward(x, MAX, return_indices=True, backend="cupy")
    indices[0, -1, -1, -1] = 200
    with pytest.raises(ValueError, match="200"):
        backward(output, MAX, indices=indices, input_shape=SHAPE, backend="cupy")


@pytest.mark.parametrize("lanes", [0, 1, 2])
def test_where_there_is_room_for_few_lanes_or_none(backend, events, lanes):
    """The arrays come first: then as many lanes as there is room for, or copies without."""
    x = cases.normal(SHAPE)
    memory_of(backend, x.nbytes * 5 // 4 + lanes * LANE + 100)
    for _ in range(2):
        events.clear()
        output = forward(x, MAX, backend="cupy").output
        oracle.assert_same_bits(output, forward(x, MAX, backend="numpy").output)
        assert len({stream for stream, what in events if what == "upload"}) == max(1, lanes)


def test_no_room_is_refused_and_the_next_call_works(backend, fault):
    x = cases.normal(SHAPE)
    expected = forward(x, MAX, backend="numpy").output
    forward(x, MAX, backend="cupy")
    memory = memory_of(backend, x.nbytes + 3 * LANE)
    for _ in range(2):
        memory.total = x.nbytes
        with pytest.raises(DeviceMemoryError, match="the device is out of memory: Out of memory"):
            forward(x, MAX, backend="cupy")
        memory.total = 1 << 20
        oracle.assert_same_bits(forward(x, MAX, backend="cupy").output, expected)
    fault.write_text("memory")
    with pytest.raises(DeviceMemoryError):
        forward(x, MAX, backend="cupy")
    fault.unlink()
    oracle.assert_same_bits(forward(x, MAX, backend="cupy").output, expected)


def test_after_a_failure_nothing_is_under_way(backend, monkeypatch):
    cuda = backend.device._cupy.cuda
    copy, left = cuda.runtime.memcpyAsync, iter((1, 1, 0))
    with monkeypatch.context() as patch:
        patch.setattr(cuda.runtime, "memcpyAsync", lambda *a: copy(*a) if next(left) else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            forward(cases.normal(SHAPE), MAX, backend="cupy")
    assert not cuda.UNDER_WAY
    assert backend.staging.buffers.count == backend.staging.buffers.idle_count
    pairs.assert_same_calls(
        "cupy", {"mode": "max", "kernel": 2}, cases.normal(SHAPE), cases.normal, 1
    )
