"""What the tests of the CuPy backend run on: the shim always, a card where there is one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pooling_engine.backends import override
from pooling_engine.backends.cupy_backend import backend as cupy_backend
from pooling_engine.backends.cupy_backend.planning.kernels import all_kernels
from pooling_engine.backends.cupy_backend.planning.launches import Launch
from tests.gpu import shim
from tests.gpu.card import ShimDevice

FAKES = Path(__file__).parent / "fakes"


@pytest.fixture(scope="session")
def every_kernel():
    """All kernels that ship, compiled for the host."""
    launches = [Launch(*name, blocks=0, values=()) for name in all_kernels()]
    shim.compile_all(launches)
    return launches


@pytest.fixture
def device(every_kernel):
    """The shim's device; "cupy" means it in the test."""
    return ShimDevice()


@pytest.fixture
def cupy(device):
    """The backend on the shim's device."""
    backend = cupy_backend.CupyBackend(device, buffer_bytes=0)
    with override("cupy", backend):
        yield backend


@pytest.fixture(params=["shim", "card"], scope="module")
def anywhere(request):
    """ "cupy" means the shim, and then the card; that there is none skips, or fails by
    POOLING_REQUIRE_GPU=1.
    """
    if request.param == "shim":
        request.getfixturevalue("every_kernel")
    with override("cupy", _on_shim() if request.param == "shim" else _card()):
        yield request.param


@pytest.fixture(scope="module")
def backend():
    """The backend on a card; where there is none, as `anywhere`."""
    backend = _card()
    with override("cupy", backend):
        yield backend


@pytest.fixture
def fault(monkeypatch, tmp_path):
    """`import cupy` gives the one in `fakes/`; the file that says what is wrong with its device."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "cupy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(FAKES)
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("FAKE_CUPY_FAULT", str(tmp_path / "fault"))
    with override("cupy", None), override("auto", None):
        yield tmp_path / "fault"
    for name in [name for name in sys.modules if name.partition(".")[0] == "cupy"]:
        del sys.modules[name]


def _on_shim():
    """Every array in memory of its own, which is guarded; lanes have tests of their own."""
    return cupy_backend.CupyBackend(ShimDevice(), buffer_bytes=0)


def _card():
    try:
        return cupy_backend.load()
    except ImportError as error:
        if os.environ.get("POOLING_REQUIRE_GPU") == "1":
            raise
        pytest.skip(f"no card: {error}")
