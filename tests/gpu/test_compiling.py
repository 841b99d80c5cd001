"""Who waits for kernels that are not compiled: `fakes/` stands in for CuPy and NVRTC."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack

import pytest

from pooling_engine import PoolSpec, backward, forward
from pooling_engine.backends import override
from pooling_engine.backends.cupy_backend import backend as cupy_backend
from pooling_engine.backends.cupy_backend.device import library
from pooling_engine.backends.cupy_backend.device.cupy_device import CupyDevice
from tests.support import cases, oracle

X = cases.normal((2, 3, 8, 8))
SPEC = PoolSpec("max", 2)


@pytest.fixture
def compiler(monkeypatch, fault, every_kernel):
    """Compiles once it is allowed to; says what it was asked for."""

    class Compiler:
        go = threading.Event()
        asked = ()

        def __call__(self, file, name, architecture):
            assert self.go.wait(10)
            self.asked += (name,)
            return compiled(file, name, architecture)

    compiled = library.load_or_compile
    compiler = Compiler()
    monkeypatch.setattr(library, "load_or_compile", compiler)
    yield compiler
    compiler.go.set()


@pytest.fixture
def use(compiler):
    """A new backend as "cupy", as in another process."""

    def backend(in_background):
        made = cupy_backend.CupyBackend(CupyDevice())
        if in_background:
            made.device.compile_in_background()
        stack.enter_context(override("cupy", made))
        return made

    with ExitStack() as stack:
        yield backend


def assert_right():
    output, indices = forward(X, SPEC, return_indices=True, backend="cupy")
    expected = forward(X, SPEC, return_indices=True, backend="numpy")
    oracle.assert_same_bits(output, expected.output)
    oracle.assert_same_bits(indices, expected.indices)
    given = {"indices": indices, "input_shape": X.shape}
    dx = backward(output, SPEC, backend="cupy", **given)
    oracle.assert_same_bits(dx, backward(output, SPEC, backend="numpy", **given))


def launches(events):
    return [what for _, what in events].count("launch")


def wait_for_launches(events):
    """Calls until all kernels are there."""
    until = time.monotonic() + 10
    while True:
        before = launches(events)
        assert_right()
        if launches(events) - before == 2:
            return
        assert time.monotonic() < until, "they are never there"
        time.sleep(0.01)


def test_in_the_background_nobody_waits(use, compiler):
    from cupy import cuda

    backend = use(in_background=True)
    cuda.EVENTS.clear()
    for _ in range(3):
        assert_right()
    assert launches(cuda.EVENTS) == 0, "NumPy computes"
    assert backend.staging.buffers.count == 1, "the lane is good for other calls"
    compiler.go.set()
    wait_for_launches(cuda.EVENTS)
    assert len(compiler.asked) == len(set(compiler.asked)) == 2


def test_norms_are_waited_for(use, compiler):
    """Their bits are not NumPy's: they must not depend on what is compiled."""
    from cupy import cuda

    use(in_background=True)
    compiler.go.set()
    cuda.EVENTS.clear()
    spec = PoolSpec("lp", 2, norm_p=2.5)
    output = forward(X, spec, backend="cupy").output
    backward(output, spec, input=X, backend="cupy")
    assert launches(cuda.EVENTS) == len(compiler.asked) == 3


def test_else_the_caller_waits(use, compiler):
    from cupy import cuda

    use(in_background=False)
    compiler.go.set()
    cuda.EVENTS.clear()
    assert_right()
    assert launches(cuda.EVENTS) == len(compiler.asked) == 2


def test_what_is_on_disk_is_not_waited_for(use, compiler):
    from cupy import cuda

    use(in_background=False)
    compiler.go.set()
    assert_right()
    asked = compiler.asked
    use(in_background=True)
    cuda.EVENTS.clear()
    assert_right()
    assert launches(cuda.EVENTS) == 2
    assert compiler.asked == asked


def test_a_kernel_that_cannot_be_compiled_is_said_once(use, compiler, fault, caplog):
    use(in_background=True)
    fault.write_text("nvrtc")
    compiler.go.set()
    until = time.monotonic() + 10
    said = []
    while len(said) < 2 and time.monotonic() < until:  # the gradient's is not asked for any more
        assert_right()
        said = [text for text in caplog.messages if text.endswith("; NumPy is used instead")]
    for _ in range(3):
        assert_right()
    assert len(compiler.asked) == len(said) == len(set(said)) == 2


def test_after_a_warm_up_in_the_background_nobody_waits(use, compiler):
    backend = use(in_background=False)
    compiler.go.set()
    backend.warm_up(background=True)
    compiler.go.clear()
    average = PoolSpec("sum", 4)
    oracle.assert_same_bits(
        forward(X, average, backend="cupy").output, forward(X, average, backend="numpy").output
    )
