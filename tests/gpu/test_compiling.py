"""Compilation of kernels while the caller waits or in the background, on the fake CuPy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import pytest

from pooling_engine import PoolSpec, backward, forward
from pooling_engine.backends import override
from pooling_engine.backends.cupy_backend.backend import CupyBackend
from pooling_engine.backends.cupy_backend.device import library
from pooling_engine.backends.cupy_backend.device.compiling import CompiledKernel
from pooling_engine.backends.cupy_backend.device.cupy_device import CupyDevice
from tests.support import cases, oracle
from tests.support.waiting import LIMIT_S, wait_until

X = cases.normal((2, 3, 8, 8))
SPEC = PoolSpec("max", 2)


class Compiler:
    """Compiler that waits for permission.

    Attributes:
        go: permission to compile.
        requested: names of the kernels, in order.
    """

    def __init__(self, compile_it: Callable[[str, str, str], CompiledKernel]) -> None:
        self._compile = compile_it
        self.go = threading.Event()
        self.requested: list[str] = []

    def __call__(self, file: str, name: str, architecture: str) -> CompiledKernel:
        assert self.go.wait(LIMIT_S)
        self.requested.append(name)
        return self._compile(file, name, architecture)


MakeBackend = Callable[[bool], CupyBackend]


@pytest.fixture
def compiler(
    monkeypatch: pytest.MonkeyPatch, fault: Path, every_kernel: None
) -> Iterator[Compiler]:
    compiler = Compiler(library.load_or_compile)
    monkeypatch.setattr(library, "load_or_compile", compiler)
    yield compiler
    compiler.go.set()


@pytest.fixture
def make_backend(compiler: Compiler) -> Iterator[MakeBackend]:
    """Make "cupy" a new backend, as in another process; the argument is "in the background"."""

    def make(in_background: bool) -> CupyBackend:
        backend = CupyBackend(CupyDevice())
        if in_background:
            backend.device.compile_in_background()
        stack.enter_context(override("cupy", backend))
        return backend

    with ExitStack() as stack:
        yield make


def assert_right() -> None:
    output, indices = forward(X, SPEC, return_indices=True, backend="cupy")
    expected = forward(X, SPEC, return_indices=True, backend="numpy")
    oracle.assert_same_bits(output, expected.output)
    oracle.assert_same_bits(indices, expected.indices)
    dx = backward(output, SPEC, indices=indices, input_shape=X.shape, backend="cupy")
    theirs = backward(output, SPEC, indices=indices, input_shape=X.shape, backend="numpy")
    oracle.assert_same_bits(dx, theirs)


def launches(cuda: ModuleType) -> int:
    return [what for _, what in cuda.EVENTS].count("launch")


def has_both_kernels(cuda: ModuleType) -> bool:
    """Make the calls once more; return whether both used their kernel."""
    before = launches(cuda)
    assert_right()
    return launches(cuda) - before == 2


def test_in_the_background_numpy_computes_until_the_kernels_are_compiled(
    make_backend: MakeBackend, compiler: Compiler, cuda: ModuleType
) -> None:
    backend = make_backend(True)
    cuda.EVENTS.clear()
    for _ in range(3):
        assert_right()
    assert launches(cuda) == 0
    buffers = backend.staging.buffers
    assert buffers.count == buffers.idle_count == 1, "the buffer is free for other calls"
    compiler.go.set()
    wait_until(lambda: has_both_kernels(cuda))
    assert len(compiler.requested) == len(set(compiler.requested)) == 2


def test_norms_wait_for_their_kernels(
    make_backend: MakeBackend, compiler: Compiler, cuda: ModuleType
) -> None:
    """Their bits differ from NumPy's, so they must not depend on the state of compilation."""
    make_backend(True)
    compiler.go.set()
    cuda.EVENTS.clear()
    spec = PoolSpec("lp", 2, norm_p=2.5)
    output = forward(X, spec, backend="cupy").output
    backward(output, spec, input=X, backend="cupy")
    assert launches(cuda) == len(compiler.requested) == 3


def test_by_default_the_caller_waits(
    make_backend: MakeBackend, compiler: Compiler, cuda: ModuleType
) -> None:
    make_backend(False)
    compiler.go.set()
    cuda.EVENTS.clear()
    assert_right()
    assert launches(cuda) == len(compiler.requested) == 2


def test_kernels_on_disk_are_loaded_at_once(
    make_backend: MakeBackend, compiler: Compiler, cuda: ModuleType
) -> None:
    make_backend(False)
    compiler.go.set()
    assert_right()
    requested = list(compiler.requested)
    make_backend(True)
    cuda.EVENTS.clear()
    assert_right()
    assert launches(cuda) == 2
    assert compiler.requested == requested


def test_a_kernel_that_does_not_compile_is_logged_once(
    make_backend: MakeBackend, compiler: Compiler, fault: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def logged() -> list[str]:
        assert_right()  # requests the kernel of the gradient only after that of the forward pass
        return [text for text in caplog.messages if text.endswith("; NumPy is used instead")]

    make_backend(True)
    fault.write_text("nvrtc")
    compiler.go.set()
    wait_until(lambda: len(logged()) == 2)
    for _ in range(3):
        assert_right()
    assert len(compiler.requested) == len(logged()) == len(set(logged())) == 2


def test_after_a_warm_up_in_the_background_calls_do_not_wait(
    make_backend: MakeBackend, compiler: Compiler
) -> None:
    backend = make_backend(False)
    compiler.go.set()
    backend.warm_up(background=True)
    compiler.go.clear()
    spec = PoolSpec("sum", 4)
    oracle.assert_same_bits(
        forward(X, spec, backend="cupy").output, forward(X, spec, backend="numpy").output
    )
