"""Helpers of the command line's tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pooling_cli.explain import render, seed_steps, spec_steps, window_steps
from pooling_engine import PoolSpec


def explain_window(
    x: Any, spec: PoolSpec, at: tuple[int, ...], output_gradient: Any | None = None
) -> str:
    """Return the text of one window's steps."""
    return render(window_steps(x, spec, at, output_gradient))


def explain_spec(spec: PoolSpec, shape: Sequence[int], dtype: Any) -> str:
    """Return the text of a spec's parameters."""
    return render(spec_steps(spec, shape, dtype))


def explain_seed_example() -> str:
    """Return the text of the seed article's example."""
    return render(seed_steps())


def assert_has(explanation: str, expected: str) -> None:
    """Assert that the lines of a block are lines of the text, one after the other."""
    block = expected.strip("\n")
    assert f"\n{block}\n" in f"\n{explanation}\n", f"{block}\n\nis not in\n\n{explanation}"
