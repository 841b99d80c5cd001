"""Choice of "auto" with a GPU that works, fails or is missing, on the fake CuPy."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pytest

from pooling_engine import InvalidSpecError, PoolSpec, forward
from pooling_engine.backends import available_backends, select_backend


def test_auto_is_cupy_if_a_device_works(fault: Path) -> None:
    assert select_backend("auto").name == "cupy"
    assert select_backend("auto").devices() == ("NVIDIA Fake at 0000:00:00.0",)
    output = forward(np.array([[[1, 3, 2]]], np.float32), PoolSpec("max", 3)).output
    assert output.tolist() == [[[3]]]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("driver", "CUDARuntimeError: cudaError35: requested by the test"),
        ("no device", "ImportError: there is no CUDA device"),
        ("nvrtc", 'RuntimeError: Failure finding "libnvrtc.so"'),
        ("silent", "ArithmeticError: the maximum of 1, 3, 2 is "),
        ("memory", "DeviceMemoryError: the device is out of memory: Out of memory"),
        ("719", "UnavailableError: the device is lost (launch failure)"),
    ],
)
def test_a_gpu_that_fails_is_skipped_with_one_line(
    fault: Path, caplog: pytest.LogCaptureFixture, wrong: str, says: str
) -> None:
    fault.write_text(wrong)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            assert select_backend("auto").name == available_backends()[0] != "cupy"
    (line,) = caplog.messages
    assert line.startswith(f'backend "cupy" is not available: no usable CUDA device: {says}'), line
    with pytest.raises(InvalidSpecError, match="no usable CUDA device") as caught:
        select_backend("cupy")
    assert caught.value.field == "backend"
    assert "\n" not in str(caught.value)


def test_the_boxed_error_of_a_broken_cupy_is_logged_in_one_line(
    fault: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "cupy.py").write_text(
        'raise ImportError("\\n=====\\nCuPy is broken.\\n\\nOriginal error:\\n  X\\n=====\\n")'
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert "cupy" not in available_backends()
    (line,) = caplog.messages
    assert line.endswith("device: ImportError: CuPy is broken. Original error: X")


def test_a_missing_cupy_is_not_logged(
    fault: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert "cupy" not in available_backends()
    assert caplog.messages == []
