"""Fixtures: the CuPy backend on the shim, on the fake CuPy, and on a GPU if there is one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import pytest

from pooling_engine.backends import override
from pooling_engine.backends.cupy_backend.backend import CupyBackend, load
from pooling_engine.backends.cupy_backend.device.cupy_device import CupyDevice
from pooling_engine.backends.cupy_backend.planning.kernels import all_kernels
from pooling_engine.backends.cupy_backend.planning.launches import Launch
from pooling_engine.backends.cupy_backend.transfers.staging import MAX_BUFFERS
from tests.gpu import shim
from tests.gpu.shim_device import ShimDevice
from tests.gpu.support import Events, UseBackend

FAKES = Path(__file__).parent / "fakes"


@pytest.fixture(scope="session")
def every_kernel() -> None:
    """Compile all kernels for the host."""
    shim.compile_all(Launch(*name, blocks=0, values=()) for name in all_kernels())


@pytest.fixture
def device(every_kernel: None) -> ShimDevice:
    """The shim's device, which the fixture `cupy` uses."""
    return ShimDevice()


@pytest.fixture
def cupy(device: ShimDevice) -> Iterator[CupyBackend]:
    """The backend "cupy" on the shim's device."""
    with override("cupy", backend := on_shim(device)):
        yield backend


@pytest.fixture(params=["shim", "device"], scope="module")
def anywhere(request: pytest.FixtureRequest) -> Iterator[None]:
    """The backend "cupy" on the shim, and on a GPU if there is one; see `backend`."""
    if request.param == "shim":
        request.getfixturevalue("every_kernel")
    with override("cupy", on_shim(ShimDevice()) if request.param == "shim" else on_gpu()):
        yield


@pytest.fixture(scope="module")
def backend() -> Iterator[CupyBackend]:
    """The backend "cupy" on a GPU. Without a GPU it skips, or fails if POOLING_REQUIRE_GPU=1."""
    with override("cupy", backend := on_gpu()):
        yield backend


def on_shim(device: ShimDevice) -> CupyBackend:
    """Return a backend without staging, so that every array is in guarded memory."""
    return CupyBackend(device, buffer_bytes=0)


def on_gpu() -> CupyBackend:
    try:
        return load()
    except ImportError as error:
        if os.environ.get("POOLING_REQUIRE_GPU") == "1":
            raise
        pytest.skip(f"no GPU: {error}")


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Import the fake CuPy as `cupy`; return the file that makes its device fail."""
    for name in _cupy_modules():
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(FAKES)
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("FAKE_CUPY_FAULT", str(tmp_path / "fault"))
    with override("cupy", None), override("auto", None):
        yield tmp_path / "fault"
    for name in _cupy_modules():
        del sys.modules[name]


def _cupy_modules() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] == "cupy"]


@pytest.fixture
def cuda(fault: Path) -> ModuleType:
    """`cupy.cuda` of the fake CuPy."""
    from cupy import cuda

    return cuda


@pytest.fixture
def events(cuda: ModuleType) -> Events:
    """Events of all streams of the fake CuPy."""
    return cuda.EVENTS


@pytest.fixture
def use_backend(fault: Path, every_kernel: None) -> Iterator[UseBackend]:
    """Make "cupy" a new backend on the fake CuPy with staging buffers of some size."""

    def use(buffer_bytes: int, max_buffers: int = MAX_BUFFERS) -> CupyBackend:
        backend = CupyBackend(CupyDevice(), buffer_bytes)
        backend.staging.buffers.max_count = max_buffers
        stack.enter_context(override("cupy", backend))
        return backend

    with ExitStack() as stack:
        yield use
