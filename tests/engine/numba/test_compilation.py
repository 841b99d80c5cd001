"""Who waits while a kernel is compiled, and who computes in the meantime."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import pooling_engine
from pooling_engine import PoolSpec, backward, forward, warm_up
from pooling_engine.backends.numba_backend import dispatch as calls
from pooling_engine.backends.numpy_backend.backend import NumpyBackend
from tests.support import cases, oracle

LIMIT_S = 120  # for what must happen; nothing is measured
SPEC = PoolSpec("max", 2)
X = cases.normal((2, 3, 6, 6))


class SlowKernel:
    """A kernel that is compiled once it is let go; `done` comes after everything queued before."""

    def __init__(self, kernel, error=None):
        self.kernel, self.error = kernel, error
        self.began, self.go = threading.Event(), threading.Event()
        self.compiled = self.called = 0

    def compile(self, types):
        self.compiled += 1
        self.began.set()
        assert self.go.wait(LIMIT_S)
        if self.error:
            raise self.error
        self.kernel.compile(types)

    def __call__(self, *arguments):
        self.called += 1
        return self.kernel(*arguments)


@pytest.fixture
def slow(monkeypatch):
    """The kernel of MAX, and a way to put another in the place of any."""

    def put(name, error=None):
        kernel = SlowKernel(getattr(calls, name), error)
        monkeypatch.setattr(calls, name, kernel)
        return kernel

    return put


@pytest.fixture
def by_numpy(monkeypatch):
    """Counts what the NumPy backend computes."""
    counted = []
    for name in ("forward", "backward"):
        original = getattr(NumpyBackend, name)

        def counting(self, *arguments, original=original, name=name):
            counted.append(name)
            original(self, *arguments)

        monkeypatch.setattr(NumpyBackend, name, counting)
    return counted


def wait_for_the_queue(backend, slow):
    """Until all that was queued before has been compiled, or has failed: they take turns."""
    last = slow("minima")
    last.go.set()
    assert not backend._library.has(last, calls.forward_call(*call_of("min")).arguments)
    assert last.began.wait(LIMIT_S)


def call_of(mode, dtype="float64"):
    x = np.zeros((1, 1, 2, 2), dtype)
    plan = pooling_engine.plan(PoolSpec(mode, 2), x.shape, x.dtype)
    return plan, x, np.empty(plan.output_shape, dtype), None


def pooled(**options):
    return forward(X, SPEC, backend="numba", **options).output


def test_in_the_background_nobody_waits(numba_backend, slow, by_numpy):
    kernel = slow("maxima")
    numba_backend._library.compile_in_background()
    expected = forward(X, SPEC, backend="numpy").output
    by_numpy.clear()
    for count in (1, 2, 3):
        oracle.assert_same_bits(pooled(), expected)
        assert len(by_numpy) == count
    assert kernel.began.wait(LIMIT_S)
    oracle.assert_same_bits(pooled(), expected)
    assert (kernel.compiled, kernel.called, len(by_numpy)) == (1, 0, 4)
    kernel.go.set()
    wait_for_the_queue(numba_backend, slow)
    oracle.assert_same_bits(pooled(), expected)
    assert (kernel.compiled, kernel.called, len(by_numpy)) == (1, 1, 4)


def test_gradients_in_the_background(numba_backend, slow, by_numpy):
    kernel, spec = slow("spread"), PoolSpec("average", 2)
    dy = cases.normal((2, 3, 3, 3))
    expected = backward(dy, spec, input_shape=X.shape, backend="numpy")
    numba_backend._library.compile_in_background()

    def gradient():
        return backward(dy, spec, input_shape=X.shape, backend="numba")

    oracle.assert_same_bits(gradient(), expected)
    assert by_numpy == ["backward"] * 2
    kernel.go.set()
    wait_for_the_queue(numba_backend, slow)
    oracle.assert_same_bits(gradient(), expected)
    assert (by_numpy, kernel.called) == (["backward"] * 2, 1)


def test_a_type_of_its_own_is_compiled_apart(numba_backend, slow, by_numpy):
    kernel = slow("maxima")
    kernel.go.set()
    numba_backend._library.compile_in_background()
    pooled()
    wait_for_the_queue(numba_backend, slow)
    by_numpy.clear()
    pooled()
    assert not by_numpy
    forward(X.astype(np.float64), SPEC, backend="numba")
    assert by_numpy == ["forward"]
    wait_for_the_queue(numba_backend, slow)
    assert kernel.compiled == 2


def test_many_callers_queue_a_kernel_once(numba_backend, slow, by_numpy):
    kernel = slow("maxima")
    numba_backend._library.compile_in_background()
    together(8, pooled)
    assert kernel.began.wait(LIMIT_S)
    together(8, pooled)
    assert by_numpy == ["forward"] * 16
    kernel.go.set()
    wait_for_the_queue(numba_backend, slow)
    together(8, pooled)
    assert (kernel.compiled, kernel.called, len(by_numpy)) == (1, 8, 16)


def test_the_background_is_begun_once(numba_backend):
    before = names_of_threads()
    together(4, numba_backend._library.compile_in_background)
    assert names_of_threads().count("kernels") == before.count("kernels") + 1


def test_a_kernel_that_cannot_be_compiled_leaves_numpy_and_one_line(
    numba_backend, slow, by_numpy, caplog
):
    kernel = slow("maxima", ValueError("no such instruction"))
    kernel.go.set()
    numba_backend._library.compile_in_background()
    expected = forward(X, SPEC, backend="numpy").output
    for _ in range(3):
        oracle.assert_same_bits(pooled(), expected)
        wait_for_the_queue(numba_backend, slow)
    assert by_numpy == ["forward"] * 4
    assert (kernel.compiled, kernel.called) == (1, 0)
    [record] = caplog.records
    assert record.name == "pooling_engine"
    assert "cannot be compiled; NumPy computes in its place" in record.getMessage()
    assert record.exc_info[1] is kernel.error


def test_without_the_background_the_caller_waits(numba_backend, slow, by_numpy):
    kernel = slow("maxima")
    outputs = []
    caller = threading.Thread(target=lambda: outputs.append(pooled()))
    caller.start()
    assert kernel.began.wait(LIMIT_S)
    assert caller.is_alive()
    assert not outputs
    kernel.go.set()
    caller.join(LIMIT_S)
    assert not by_numpy
    oracle.assert_same_bits(outputs[0], forward(X, SPEC, backend="numpy").output)
    assert (kernel.compiled, kernel.called) == (1, 1)
    pooled()
    assert (kernel.compiled, kernel.called) == (1, 2)


def test_warm_up_in_the_background(numba_backend, slow, by_numpy):
    """The common kernels are there when it returns; nobody waits for those of another type."""
    warm_up("numba", background=True)
    kernel = slow("maxima")
    assert not by_numpy
    for spec in (PoolSpec("max", 3), PoolSpec("average", 3, 1)):
        result = forward(X, spec, backend="numba", return_indices=spec.mode == "max")
        backward(result.output, spec, input_shape=X.shape, indices=result.indices, backend="numba")
    assert not by_numpy
    forward(X.astype(np.float64), SPEC, backend="numba")
    assert by_numpy == ["forward"]
    assert kernel.began.wait(LIMIT_S)
    kernel.go.set()
    wait_for_the_queue(numba_backend, slow)


def test_warm_up_alone_waits_for_every_kernel_to_come(numba_backend, slow, by_numpy):
    warm_up("numba")
    kernel = slow("maxima")
    kernel.go.set()
    forward(X.astype(np.float64), SPEC, backend="numba")
    assert (kernel.compiled, kernel.called, by_numpy) == (1, 1, [])


def together(count, call):
    """Calls from so many threads at once."""
    barrier = threading.Barrier(count)
    failures = []

    def wait_and_call():
        barrier.wait(LIMIT_S)
        try:
            call()
        except Exception as error:
            failures.append(error)

    callers = [threading.Thread(target=wait_and_call) for _ in range(count)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(LIMIT_S)
    assert not failures


def names_of_threads():
    return [thread.name for thread in threading.enumerate()]
