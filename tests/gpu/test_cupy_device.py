"""`CupyDevice` on the fake CuPy: arrays of other libraries, and the cache of kernels."""

from __future__ import annotations

import pwd
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest

from pooling_engine.backends.cupy_backend.device.compiling import load_or_compile
from pooling_engine.backends.cupy_backend.device.cupy_device import CupyDevice
from tests.gpu.support import Array
from tests.support import cases, oracle, palettes

SHAPE = (2, 3, 4, 5)


@pytest.fixture
def device(fault: Path) -> CupyDevice:
    return CupyDevice()


def foreign(array: Array) -> Any:
    """Return an array as another library exports its device memory."""
    return SimpleNamespace(_memory=array)


@pytest.mark.parametrize("dtype", palettes.DTYPES, ids=lambda dtype: dtype.name)
def test_only_arrays_that_are_not_contiguous_are_copied(
    device: CupyDevice, dtype: np.dtype[Any]
) -> None:
    x = palettes.bits(SHAPE, dtype, 0)
    adopted, is_copy = device.adopt(foreign(x))
    assert (adopted.data.ptr, is_copy) == (x.ctypes.data, False)
    for other in (x.swapaxes(2, 3), x[..., ::2], x[:, 1:]):
        adopted, is_copy = device.adopt(foreign(other))
        assert is_copy
        oracle.assert_same_bits(adopted._memory, np.ascontiguousarray(other))


def test_an_array_on_another_device_is_rejected(device: CupyDevice) -> None:
    own = device.adopt(foreign(cases.normal(SHAPE)))[0]
    own.device = SimpleNamespace(id=1)
    with pytest.raises(ValueError, match="it is on device 1, but the current device is 0"):
        device.adopt(own)


def test_kernels_compile_for_a_user_without_a_home(
    fault: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A container may run under a user ID that has no entry; CuPy uses the folder "~" then."""

    def unknown_user(number: int) -> NoReturn:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown_user)
    for name in ("CUPY_CACHE_DIR", "HOME"):
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    compiled = load_or_compile("rows.cu", "any", "sm_90")
    assert load_or_compile("rows.cu", "any", "sm_90") == compiled
    assert len(list(tmp_path.glob("~/.cupy/kernel_cache/pooling-service/*.cubin"))) == 1


def test_kernels_compile_without_a_writable_cache(
    fault: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "file"))
    assert load_or_compile("rows.cu", "any", "sm_90").symbol == "any"
