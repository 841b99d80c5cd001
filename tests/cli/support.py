"""Helpers of the command line's tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pooling_cli.explain import render, seed_steps, spec_steps, window_steps
from pooling_engine import PoolSpec
from pooling_engine.dtypes import BFLOAT16
from tests.support.waiting import LIMIT_S

NAN = float("nan")
TIED = np.array([[5.0, 1.0, 2.0], [3.0, 5.0, -4.0], [0.5, 2.0, 5.0]]).reshape(1, 1, 3, 3)
GAPS = np.array([[5.0, NAN, 2.0], [3.0, 5.0, -4.0], [NAN, 2.0, 5.0]]).reshape(1, 1, 3, 3)
RAMP = np.arange(1.0, 6.0).reshape(1, 1, 5)
SQUARES = np.arange(10.0).reshape(1, 1, 10) ** 2
PLANE = np.arange(70, dtype=np.float32).reshape(1, 1, 10, 7)
BYTES = np.array([[-90, -87, -63], [-10, 103, 67], [1, -128, 127]], np.int8).reshape(1, 1, 3, 3)
HUGE = np.array([2**62, 2**61, -5, 2**62], np.int64).reshape(1, 1, 4)


def pooling(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the program, and assert that it shows no traceback."""
    command = [sys.executable, "-m", "pooling_cli.main", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, cwd=cwd)
    assert "Traceback" not in done.stderr
    return done


def bfloat16(values: list[float]) -> Any:
    """Return the values as one plane of bfloat16."""
    assert BFLOAT16 is not None
    return np.array(values).astype(BFLOAT16).reshape(1, 1, -1)


def explain_window(
    x: Any, spec: PoolSpec, at: tuple[int, ...], output_gradient: Any | None = None
) -> str:
    """Return the text of one window's steps."""
    return render(window_steps(x, spec, at, output_gradient))


def explain_spec(spec: PoolSpec, shape: Sequence[int], dtype: Any) -> str:
    """Return the text of a spec's parameters."""
    return render(spec_steps(spec, shape, dtype))


def explain_seed_example() -> str:
    """Return the text of the built-in example."""
    return render(seed_steps())


def assert_has(explanation: str, expected: str) -> None:
    """Assert that the lines of a block are lines of the text, one after the other."""
    block = expected.strip("\n")
    assert f"\n{block}\n" in f"\n{explanation}\n", f"{block}\n\nis not in\n\n{explanation}"
