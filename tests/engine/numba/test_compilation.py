"""Calls while their kernel is compiled: they wait, or the NumPy backend computes them."""

from __future__ import annotations

import errno
import threading

import numpy as np
import pytest

import pooling_engine
from pooling_engine import PoolSpec, backward, forward, warm_up
from pooling_engine.backends.numba_backend import dispatch
from pooling_engine.backends.numpy_backend.backend import NumpyBackend
from tests.support import cases, oracle

pytestmark = pytest.mark.once  # every test names its backend

LIMIT_S = 120  # for an event that must happen; no time is measured
SPEC = PoolSpec("max", 2)
X = cases.normal((2, 3, 6, 6))


class SlowKernel:
    """A kernel whose compilation waits for the event `go`.

    It counts how often it is compiled and called.
    """

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
        compiled = self.kernel.compile(types)

        def call(*arguments):
            self.called += 1
            return compiled(*arguments)

        return call


@pytest.fixture
def slow(monkeypatch):
    """Return a function that replaces a kernel by a `SlowKernel`."""

    def replace(name, error=None):
        kernel = SlowKernel(getattr(dispatch, name), error)
        monkeypatch.setattr(dispatch, name, kernel)
        return kernel

    return replace


@pytest.fixture
def by_numpy(monkeypatch):
    """List the calls that the NumPy backend computes."""
    counted = []
    for name in ("forward", "backward"):
        original = getattr(NumpyBackend, name)

        def counting(self, *arguments, original=original, name=name):
            counted.append(name)
            original(self, *arguments)

        monkeypatch.setattr(NumpyBackend, name, counting)
    return counted


def wait_for_the_queue(backend, slow):
    """Wait until all kernels queued so far are compiled or have failed: they take turns."""
    last = slow("min_pool")
    last.go.set()
    assert backend.library.find(dispatch.forward_launch(plan_of("min"))) is None
    assert last.began.wait(LIMIT_S)


def plan_of(mode):
    return pooling_engine.plan(PoolSpec(mode, 2), (1, 1, 2, 2), "float64")


def pooled(**options):
    return forward(X, SPEC, backend="numba", **options).output


def test_numpy_computes_while_a_kernel_compiles_in_the_background(numba_backend, slow, by_numpy):
    kernel = slow("max_pool")
    numba_backend.library.compile_in_background()
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


def test_numpy_computes_gradients_while_their_kernel_compiles(numba_backend, slow, by_numpy):
    kernel, spec = slow("spread_gradients"), PoolSpec("average", 2, 1)
    dy = cases.normal((2, 3, 5, 5))
    expected = backward(dy, spec, input_shape=X.shape, backend="numpy")
    numba_backend.library.compile_in_background()

    def gradient():
        return backward(dy, spec, input_shape=X.shape, backend="numba")

    oracle.assert_same_bits(gradient(), expected)
    assert by_numpy == ["backward"] * 2
    kernel.go.set()
    wait_for_the_queue(numba_backend, slow)
    oracle.assert_same_bits(gradient(), expected)
    assert (by_numpy, kernel.called) == (["backward"] * 2, 1)


def test_a_kernel_is_compiled_for_each_element_type(numba_backend, slow, by_numpy):
    kernel = slow("max_pool")
    kernel.go.set()
    numba_backend.library.compile_in_background()
    pooled()
    wait_for_the_queue(numba_backend, slow)
    by_numpy.clear()
    pooled()
    assert not by_numpy
    forward(X.astype(np.float64), SPEC, backend="numba")
    assert by_numpy == ["forward"]
    wait_for_the_queue(numba_backend, slow)
    assert kernel.compiled == 2


def test_concurrent_callers_queue_a_kernel_once(numba_backend, slow, by_numpy):
    kernel = slow("max_pool")
    numba_backend.library.compile_in_background()
    together(8, pooled)
    assert kernel.began.wait(LIMIT_S)
    together(8, pooled)
    assert by_numpy == ["forward"] * 16
    kernel.go.set()
    wait_for_the_queue(numba_backend, slow)
    together(8, pooled)
    assert (kernel.compiled, kernel.called, len(by_numpy)) == (1, 8, 16)


def test_the_background_thread_starts_once(numba_backend):
    before = names_of_threads()
    together(4, numba_backend.library.compile_in_background)
    assert names_of_threads().count("kernels") == before.count("kernels") + 1


def test_a_failed_compilation_is_logged_once_and_numpy_computes(
    numba_backend, slow, by_numpy, caplog
):
    kernel = slow("max_pool", ValueError("no such instruction"))
    kernel.go.set()
    numba_backend.library.compile_in_background()
    expected = forward(X, SPEC, backend="numpy").output
    for _ in range(3):
        oracle.assert_same_bits(pooled(), expected)
        wait_for_the_queue(numba_backend, slow)
    assert by_numpy == ["forward"] * 4
    assert (kernel.compiled, kernel.called) == (1, 0)
    [record] = caplog.records
    assert record.name == "pooling_engine"
    assert "the NumPy backend computes instead" in record.getMessage()
    assert record.exc_info[1] is kernel.error


def test_callers_wait_for_a_kernel_that_compiles_in_the_foreground(numba_backend, slow, by_numpy):
    kernel = slow("max_pool")
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


def test_background_warm_up_compiles_the_common_kernels_first(numba_backend, slow, by_numpy):
    """Calls with other element types do not wait for their kernels."""
    warm_up("numba", background=True)
    kernel = slow("max_pool")
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


def test_calls_after_a_foreground_warm_up_wait_for_their_kernels(numba_backend, slow, by_numpy):
    warm_up("numba")
    kernel = slow("max_pool")
    kernel.go.set()
    forward(X.astype(np.float64), SPEC, backend="numba")
    assert (kernel.compiled, kernel.called, by_numpy) == (1, 1, [])


def together(count, call):
    """Run `call` in `count` threads at once."""
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


class FullDisk:
    """A kernel whose first compilation succeeds, but cannot be saved."""

    def __init__(self, kernel):
        self.kernel, self.compiled = kernel, 0

    def compile(self, types):
        self.compiled += 1
        compiled = self.kernel.compile(types)
        if self.compiled == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return compiled


def test_a_kernel_that_cannot_be_saved_is_used(numba_backend, by_numpy, monkeypatch, caplog):
    kernel = FullDisk(dispatch.max_pool)
    monkeypatch.setattr(dispatch, "max_pool", kernel)
    expected = forward(X, SPEC, backend="numpy").output
    by_numpy.clear()
    for _ in range(2):
        oracle.assert_same_bits(pooled(), expected)
    assert (kernel.compiled, by_numpy) == (2, [])
    (record,) = caplog.records
    assert "No space left on device" in record.getMessage()
