"""Arrays of other libraries: accepted as they are, or rejected with advice."""

from __future__ import annotations

import numpy as np
import pytest

import pooling_engine
from pooling_engine import InvalidTensorError, PoolSpec

SPEC = PoolSpec("max", 2)
X = np.arange(2 * 3 * 8 * 8, dtype=np.float32).reshape(2, 3, 8, 8)
EXPECTED = pooling_engine.forward(X, SPEC).output


class OnlyDlpack:
    """Array that offers DLPack alone."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


def test_an_array_with_dlpack_alone():
    np.testing.assert_array_equal(pooling_engine.forward(OnlyDlpack(X), SPEC).output, EXPECTED)


@pytest.mark.parametrize("mask", [False, X > 5], ids=["unmasked", "masked"])
def test_a_masked_array_is_rejected(mask):
    masked = np.ma.masked_array(X, mask)
    with pytest.raises(
        InvalidTensorError, match=r"input is a masked array.*input.filled"
    ) as caught:
        pooling_engine.forward(masked, SPEC)
    assert caught.value.field == "input"
    with pytest.raises(InvalidTensorError, match="out is a masked array"):
        pooling_engine.forward(X, SPEC, out=np.ma.masked_array(EXPECTED.copy()))


@pytest.mark.parametrize(
    "array",
    [
        X.astype(object),
        None,
        "text",
        b"bytes",
        {"a": 1},
        [[None]],
        np.zeros(3, "datetime64[s]"),
        1j,
    ],
    ids=repr,
)
def test_what_holds_no_numbers_is_rejected(array):
    with pytest.raises(InvalidTensorError) as caught:
        pooling_engine.forward(array, SPEC)
    assert caught.value.field == "input"
