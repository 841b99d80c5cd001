"""Arrays of the host on their way through lanes: `fakes/` stands in for CuPy.

There, work on a stream is done when somebody waits for it, and not before: what is read or
overwritten too early is wrong in the result.
"""

from __future__ import annotations

import gc
import itertools
import random
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest

import pooling_engine
from pooling_engine import (
    DeviceMemoryError,
    InvalidTensorError,
    PoolSpec,
    backward,
    forward,
)
from pooling_engine.backends import override
from pooling_engine.backends.cupy_backend import backend as cupy_backend
from pooling_engine.backends.cupy_backend.device.cupy_device import CupyDevice, CupyStagingBuffer
from pooling_engine.backends.cupy_backend.planning.chunks import ChunkLayout, LaunchStep
from pooling_engine.backends.cupy_backend.planning.launches import Launch, forward_launch
from pooling_engine.backends.cupy_backend.transfers import staging
from pooling_engine.backends.cupy_backend.transfers.buffers import BUFFERS_PER_CALL
from tests.support import cases, oracle, pairs, palettes

SHAPE = (3, 7, 9, 8)
LAST = {"layout": "channels_last"}
LANE = 8 << 10  # bytes: some planes of that shape
KINDS = (
    {"mode": "max", "kernel": 3, "stride": 2, "padding": 1},
    {"mode": "min", "kernel": (4, 3), "nan_policy": "error"},
    {"mode": "max", "kernel": 2, "nan_policy": "ignore"} | LAST,
    {"mode": "average", "kernel": 3, "stride": 2, "padding": 1, "count_include_pad": False},
    {"mode": "average", "kernel": 2} | LAST,
    {"mode": "sum", "adaptive_output": (4, 3)},
    {"mode": "max", "global_window": True},
    {"mode": "lp", "norm_p": 1, "kernel": 3, "stride": 2, "padding": 1},
    {"mode": "lp", "norm_p": np.inf, "kernel": 2} | LAST,
    {"mode": "max", "kernel": 3, "stride": 2, "padding": 1, "tie_policy": "split"},
    {"mode": "min", "kernel": 2, "tie_policy": "all", "nan_policy": "error"} | LAST,
)


@pytest.fixture
def events(fault):
    from cupy import cuda

    return cuda.EVENTS


@pytest.fixture
def through(fault, every_kernel, monkeypatch):
    """Makes "cupy" a backend whose lanes have so many bytes."""

    def use(lane_bytes, lanes=staging.MAX_BUFFERS):
        backend = cupy_backend.CupyBackend(CupyDevice(), lane_bytes)
        backend.staging.buffers.max_count = lanes
        stack.enter_context(override("cupy", backend))
        return backend

    with ExitStack() as stack:
        yield use


@pytest.mark.parametrize("dtype", palettes.DTYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("options", KINDS, ids=cases.name_of)
def test_the_bits_are_those_of_a_direct_call(through, events, options, dtype):
    lane = (1 + dtype.itemsize) << 10  # for one item of the batch, or for some planes
    spec, x = PoolSpec(**options), cases.to_layout(options, cases.normal(SHAPE, dtype))
    through(lane)
    events.clear()
    staged = forward(x, spec, backend="cupy").output
    assert len({stream for stream, _ in events}) > 1, "slabs"
    through(0)
    oracle.assert_same_bits(staged, forward(x, spec, backend="cupy").output)
    through(lane)
    pairs.assert_same_calls("cupy", options, cases.normal(SHAPE, dtype), cases.normal, 1)


@pytest.mark.parametrize("seed", range(8))
def test_a_card_works_when_it_likes(through, monkeypatch, seed):
    from cupy import cuda

    monkeypatch.setattr(cuda, "CHANCE", random.Random(seed))
    through(3 << 10)
    options = {"mode": "max", "kernel": 2, "nan_policy": "error"}
    pairs.assert_same_calls("cupy", options, cases.normal((1, 31, 14, 14)), cases.normal, seed)


@pytest.mark.parametrize("planes", [1, 2, 3, 4, 5, 6, 7, 11, 12, 13])
def test_slabs_of_any_number(through, planes):
    through(3 << 10)  # three planes and a bit
    pairs.assert_same_calls(
        "cupy", {"mode": "max", "kernel": 2}, cases.normal((1, planes, 14, 14)), cases.normal, 1
    )


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (0, 1, 8, 8)])
def test_no_planes(through, shape):
    through(LANE)
    x = np.zeros(shape, np.float32)
    assert forward(x, PoolSpec("max", 2), backend="cupy").output.shape == (*shape[:2], 4, 4)


def test_lanes_overlap(through, events):
    through(LANE)
    x = np.zeros((1, 40, 16, 16), np.float32)
    forward(x, PoolSpec("max", 2), backend="cupy")  # the first call makes the lanes
    events.clear()
    forward(x, PoolSpec("max", 2), backend="cupy")
    first = [stream for stream, _ in events[:9:3]]
    assert len(set(first)) == BUFFERS_PER_CALL, "as many slabs begin before one is awaited"
    slab = ["upload", "launch", "download"]
    assert [what for _, what in events[:10]] == [*slab, *slab, *slab, "wait"]
    for stream in first:
        own = [what for lane, what in events if lane == stream]
        assert own == [*slab, "wait"] * (len(own) // 4), "one wait a slab, before the next is in it"


def test_a_small_call_waits_once_in_memory_that_is_there(through, events):
    backend = through(staging.BUFFER_BYTES)
    x, spec = cases.normal(SHAPE), PoolSpec("max", 2)
    output, indices = forward(x, spec, return_indices=True, backend="cupy")
    backend.device._cupy.get_default_memory_pool().take = None  # no more memory
    for call in (
        lambda: forward(x, spec, return_indices=True, backend="cupy"),
        lambda: backward(output, spec, indices=indices, input_shape=SHAPE, backend="cupy"),
    ):
        events.clear()
        call()
        kinds = [what for what, _ in itertools.groupby(what for _, what in events)]
        assert kinds == ["upload", "launch", "download", "wait"]
        assert [what for _, what in events].count("upload") == 1


@pytest.mark.parametrize("lane_bytes", [0, LANE, staging.BUFFER_BYTES])
def test_what_kernels_leave_for_one_another(through, lane_bytes):
    backend = through(lane_bytes)
    x, plan = cases.normal(SHAPE), pooling_engine.plan(PoolSpec("max", 2), SHAPE, "float32")
    output = np.empty(plan.output_shape, np.float32)
    scratch = {"middle": output.dtype, "wide": np.dtype(np.float64)}
    assert not backend._run(plan, twice, {"x": x}, {"y": output}, scratch)
    oracle.assert_same_bits(output, forward(x, PoolSpec("max", 2), backend="numpy").output)


def twice(plan, is_aligned=True):
    """The maxima, and of each alone the maximum."""
    again = pooling_engine.plan(PoolSpec("max", 1), plan.output_shape, plan.dtype)
    first, second = (forward_launch(p, False, is_aligned) for p in (plan, again))
    return [
        LaunchStep(first, ("x", "middle", "indices", "null")),
        LaunchStep(second, ("middle", "y", "indices", "null")),
    ]


def test_what_kernels_leave_for_one_another_stays_on_the_card(through, monkeypatch):
    backend = through(staging.BUFFER_BYTES)
    moved = []
    for name in ("upload", "download"):
        move = getattr(CupyStagingBuffer, name)
        monkeypatch.setattr(
            CupyStagingBuffer, name, lambda *a, move=move: moved.append(a[3]) or move(*a)
        )
    x, spec = cases.normal(SHAPE), PoolSpec("max", 2)
    plan = pooling_engine.plan(spec, SHAPE, "float32")
    output = forward(x, spec, backend="cupy").output
    backend._run(plan, twice, {"x": x}, {"y": output}, {"middle": output.dtype})
    assert moved[:2] == moved[2:], "as without them"


def test_a_lane_has_room_for_what_kernels_leave(through):
    """Places are side by side and within the lane, however many planes it takes."""
    plan = pooling_engine.plan(PoolSpec("max", 2), SHAPE, "float32")
    nbytes = {"x": plan.input_bytes}, {"y": plan.output_bytes}
    layout = ChunkLayout(plan, *nbytes, {"wide": np.dtype(np.float64)}, ())
    names, outputs = ("x", "flag", "y", "wide"), 4 * 4
    assert layout.plane_bytes == 4 * 9 * 8 + 4 * outputs + 8 * outputs
    for nbytes in range(1000, 20_000, 100):
        planes = layout.planes_within(nbytes)
        chunk = layout.chunk(planes, lambda plan: [LaunchStep(Launch("", "", 0, ()), names)])
        ((_, (x, doubt, y, wide)),) = chunk.launches
        assert (chunk.upload, chunk.download) == ((x, doubt + 4), (doubt, y + 4 * outputs * planes))
        assert x + plan.input_bytes // plan.outer * planes <= doubt
        assert chunk.download[1] <= wide <= nbytes - 8 * outputs * planes


def test_a_lane_computes_where_its_memory_is(through):
    from cupy import cuda

    through(LANE)
    x, spec = cases.normal(SHAPE), PoolSpec("max", 2)
    expected = forward(x, spec, backend="cupy").output
    with cuda.Device(1):
        oracle.assert_same_bits(forward(x, spec, backend="cupy").output, expected)


def test_whoever_does_not_wait_reads_garbage(through, monkeypatch):
    """That the stand-in finds what these tests are for."""
    through(LANE)
    x, spec = cases.normal((1, 40, 16, 16)), PoolSpec("max", 2)
    expected = forward(x, spec, backend="numpy").output
    monkeypatch.setattr(
        "pooling_engine.backends.cupy_backend.device.cupy_device.CupyStagingBuffer.wait",
        lambda _: None,
    )
    assert not np.array_equal(forward(x, spec, backend="cupy").output, expected)


def test_large_calls_leave_lanes_to_small_ones(through):
    borrow = through(LANE).staging.buffers.borrow
    with borrow(3) as first, borrow(3) as second, borrow(3) as third:
        assert [len(lanes) for lanes in (first, second, third)] == [3, 3, 1]
        with borrow(1) as fourth:
            assert len(fourth) == 1
    with borrow(3) as again:
        assert len(again) == 3


def test_whoever_writes_too_early_is_found(through):
    lane = through(LANE).device.staging_buffer(LANE)
    lane.upload(lane.host_address, lane.device_address, 100)
    lane.host[99] += 1
    with pytest.raises(AssertionError, match="written before it was uploaded"):
        lane.wait()


def test_many_threads_share_few_lanes(through, events):
    through(LANE, lanes=4)
    x = [cases.normal((1, 40, 16, 16), seed=seed) for seed in range(12)]
    spec = PoolSpec("average", 3, 2, 1)
    with ThreadPoolExecutor(6) as pool:
        outputs = list(pool.map(lambda x: forward(x, spec, backend="cupy").output, x))
    for given, output in zip(x, outputs, strict=True):
        oracle.assert_same_bits(output, forward(given, spec, backend="numpy").output)
    assert len({stream for stream, _ in events}) <= 4


def test_the_last_plane_is_looked_at_too(through):
    through(LANE)
    x = cases.normal((1, 40, 16, 16))
    spec = PoolSpec("max", 2, nan_policy="error")
    output, indices = forward(x, spec, return_indices=True, backend="cupy")
    x[0, -1, -1, -1] = np.nan
    with pytest.raises(InvalidTensorError, match='nan_policy "error" rejects it'):
        forward(x, spec, backend="cupy")
    indices[0, -1, 3, 2] = 200
    with pytest.raises(InvalidTensorError, match="200") as refusal:
        backward(output, spec, indices=indices, input_shape=x.shape, backend="cupy")
    assert refusal.value.field == "indices"
    indices[0, -1, 3, 2] = 0
    backward(output, spec, indices=indices, input_shape=x.shape, backend="cupy")


def test_after_a_failure_nothing_is_under_way_and_the_next_call_works(through, events, monkeypatch):
    backend = through(LANE)
    x, spec = cases.normal((1, 40, 16, 16)), PoolSpec("max", 2)
    kernel, left = backend.device.kernel, iter((True, True, False))
    monkeypatch.setattr(backend.device, "kernel", lambda launch: next(left) and kernel(launch))
    with pytest.raises(TypeError, match="'bool' object is not callable"):
        forward(x, spec, backend="cupy")
    assert [what for _, what in events[-3:]] == ["wait"] * 3, "all its lanes"
    monkeypatch.undo()
    output = forward(x, spec, backend="cupy").output
    oracle.assert_same_bits(output, forward(x, spec, backend="numpy").output)
    assert backend.staging.buffers.count == backend.staging.buffers.idle_count == BUFFERS_PER_CALL


def memory_of(backend, total):
    memory = backend.device._cupy.get_default_memory_pool()
    memory.total = total
    return memory


def test_one_lane_is_enough_where_there_is_no_room_for_more(through):
    backend = through(LANE)
    memory_of(backend, LANE + 100)
    x, spec = cases.normal((1, 40, 16, 16)), PoolSpec("max", 2)
    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(lambda _: forward(x, spec, backend="cupy").output, range(8)))
    for output in outputs:
        oracle.assert_same_bits(output, forward(x, spec, backend="numpy").output)
    assert backend.staging.buffers.count == backend.staging.buffers.idle_count == 1


def test_no_room_at_all_is_refused_and_the_next_call_works(through, fault):
    through(LANE)
    x, spec = cases.normal(SHAPE), PoolSpec("max", 2)
    fault.write_text("memory")
    for _ in range(2):
        with pytest.raises(DeviceMemoryError, match="the device is out of memory: Out of memory"):
            forward(x, spec, backend="cupy")
    fault.unlink()
    oracle.assert_same_bits(
        forward(x, spec, backend="cupy").output, forward(x, spec, backend="numpy").output
    )


def test_idle_lanes_make_room_for_a_call_that_needs_it(through):
    backend = through(LANE)
    small, spec = cases.normal((1, 40, 16, 16)), PoolSpec("max", 2)
    forward(small, spec, backend="cupy")
    large = cases.normal((1, 1, 80, 80))  # one plane, larger than a lane
    memory = memory_of(backend, large.nbytes * 5 // 4 + 100)
    assert memory.used == 3 * LANE
    oracle.assert_same_bits(
        forward(large, spec, backend="cupy").output, forward(large, spec, backend="numpy").output
    )
    assert backend.staging.buffers.count == 0
    forward(small, spec, backend="cupy")


def test_who_waits_for_a_lane_gets_it(through):
    """A call whose lanes are all taken goes on when one is given back, though that call failed."""
    backend = through(LANE, lanes=1)
    taken, release = threading.Event(), threading.Event()

    def hold():
        with backend.staging.buffers.borrow(1):
            taken.set()
            release.wait(10)
            raise ZeroDivisionError

    with ThreadPoolExecutor(2) as pool:
        holds = pool.submit(hold)
        assert taken.wait(10)
        x = cases.normal(SHAPE)
        waits = pool.submit(forward, x, PoolSpec("max", 2), backend="cupy")
        release.set()
        with pytest.raises(ZeroDivisionError):
            holds.result(10)
        oracle.assert_same_bits(
            waits.result(10).output, forward(x, PoolSpec("max", 2), backend="numpy").output
        )


def test_no_more_is_remembered_than_is_said(through, monkeypatch):
    monkeypatch.setattr(staging, "MAX_SCHEDULES", 3)
    backend = through(LANE)
    for size in range(4, 14):
        x = cases.normal((1, 1, size, size))
        oracle.assert_same_bits(
            forward(x, PoolSpec("max", 2), backend="cupy").output,
            forward(x, PoolSpec("max", 2), backend="numpy").output,
        )
        assert backend.staging.schedule_count <= 3


def test_nothing_of_a_caller_is_remembered(through):
    """Neither its arrays nor its results are held after a call."""
    through(LANE)
    x, spec = cases.normal((1, 40, 16, 16)), PoolSpec("max", 2)
    result = forward(x, spec, return_indices=True, backend="cupy")
    held = [weakref.ref(array) for array in (x, *result)]
    del x, result
    gc.collect()
    assert [ref() for ref in held] == [None, None, None]
