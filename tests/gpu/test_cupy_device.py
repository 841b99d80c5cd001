"""What `CupyDevice` makes of the arrays of others: `fakes/` stands in for CuPy."""

from __future__ import annotations

import pwd
from types import SimpleNamespace

import numpy as np
import pytest

from pooling_engine.backends.cupy_backend.device.compiling import load_or_compile
from pooling_engine.backends.cupy_backend.device.cupy_device import CupyDevice
from tests.support import cases, oracle, palettes

SHAPE = (2, 3, 4, 5)


@pytest.fixture
def taken(fault):
    """Makes an array of NumPy one of a library that hands out memory of a card."""
    device = CupyDevice()
    return device, lambda array: SimpleNamespace(_memory=array)


@pytest.mark.parametrize("dtype", palettes.DTYPES, ids=lambda dtype: dtype.name)
def test_only_what_is_not_contiguous_is_copied(taken, dtype):
    device, given = taken
    x = palettes.bits(SHAPE, dtype, 0)
    adopted, is_copy = device.adopt(given(x))
    assert (adopted.data.ptr, is_copy) == (x.ctypes.data, False)
    for other in (x.swapaxes(2, 3), x[..., ::2], x[:, 1:]):
        adopted, is_copy = device.adopt(given(other))
        assert is_copy
        oracle.assert_same_bits(adopted._memory, np.ascontiguousarray(other))


def test_kernels_of_a_user_without_a_home_are_compiled(fault, monkeypatch, tmp_path):
    """As in a container that runs under a number; they are kept where CuPy keeps its own."""

    def nobody(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("CUPY_CACHE_DIR", "HOME"):
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    assert load_or_compile("rows.cu", "any", "sm_90") == load_or_compile("rows.cu", "any", "sm_90")


def test_kernels_are_compiled_where_none_can_be_kept(fault, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "file"))
    assert load_or_compile("rows.cu", "any", "sm_90").symbol == "any"


def test_what_is_on_another_device_is_refused(taken, monkeypatch):
    device, given = taken
    own = device.adopt(given(cases.normal(SHAPE)))[0]
    own.device = SimpleNamespace(id=1)
    with pytest.raises(ValueError, match="it is on device 1, but the current device is 0"):
        device.adopt(own)
