"""What `CupyDevice` makes of the arrays of others: `fakes/` stands in for CuPy."""

from __future__ import annotations

from types import SimpleNamespace

import cases
import numpy as np
import oracle
import palettes
import pytest

from pooling_engine.backends.cupy_kernels.device import CupyDevice

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


def test_what_is_on_another_device_is_refused(taken, monkeypatch):
    device, given = taken
    own = device.adopt(given(cases.normal(SHAPE)))[0]
    own.device = SimpleNamespace(id=1)
    with pytest.raises(ValueError, match="it is on device 1, and the current one is 0"):
        device.adopt(own)
