"""`pooling explain`: golden lines of adaptive and global windows, policies and element types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from pooling_cli.main import cli
from pooling_engine import PoolSpec
from tests.cli.support import (
    BYTES,
    GAPS,
    HUGE,
    NAN,
    PLANE,
    SQUARES,
    TIED,
    assert_has,
    bfloat16,
    explain_window,
)

CASES: dict[str, tuple[Any, PoolSpec, tuple[int, ...], list[str]]] = {
    "adaptive along one axis": (
        SQUARES,
        PoolSpec("max", adaptive_output=3),
        (0, 0, 1),
        [
            """
  windows  adaptive: output size 3, kernel up to 4
  padding  none
  output   (1, 1, 3) float64
  indices  uint8 in format "window" (255: none); int64 in "plane" and "tensor"
""",
            "  taps     4 window positions, all on elements: positions 3 to 6",
            "  The largest of the 4 values is 36.0, at position 6.",
            """
  1 other window also contains this element; a window that selects it adds its
  own gradient.
""",
            """
  the output size is given; along an axis, window i starts at element
  floor(i * size / outputs) and ends before ceil((i + 1) * size / outputs)

  positions: window 1 from floor(1 * 10 / 3) = 3 up to ceil(2 * 10 / 3) = 7
""",
        ],
    ),
    "adaptive average along two axes": (
        PLANE,
        PoolSpec("average", adaptive_output=(3, 4)),
        (0, 0, 1, 3),
        [
            "  windows  adaptive: output size 3 x 4, kernel up to 4 x 3",
            '  divisor  rule "padded_taps": the number of taps on elements or in the padding',
            "  taps     8 window positions, all on elements: rows 3 to 6; columns 5, 6",
            "  divisor = 8, the number of taps",
            "  average = 296.0 / 8 = 37.0",
            "  Other windows also contain 6 of the 8 elements and add their own shares.",
            """
     rows: window 1 from floor(1 * 10 / 3) = 3 up to ceil(2 * 10 / 3) = 7
  columns: window 3 from floor(3 * 7 / 4) = 5 up to ceil(4 * 7 / 4) = 7
""",
        ],
    ),
    "a tap of an adaptive window that is not the largest": (
        PLANE,
        PoolSpec("max", adaptive_output=(3, 4)),
        (0, 0, 1, 3),
        [
            """
  The largest of the 8 values is 48.0, at row 6, column 6.
  Its index is 10, counted from 0 row by row in the largest window (4 x 3).
"""
        ],
    ),
    "adaptive windows of one size": (
        SQUARES,
        PoolSpec("sum", adaptive_output=5),
        (0, 0, 4),
        [
            "  windows  adaptive: output size 5, kernel 2",
            "  sum = 64.0 + 81.0",
            "  No other window contains these elements.",
            "  positions: window 4 from floor(4 * 10 / 5) = 8 up to ceil(5 * 10 / 5) = 10",
        ],
    ),
    "global": (
        PLANE,
        PoolSpec("min", global_window=True),
        (0, 0, 0, 0),
        [
            "  windows  global: one window per plane, kernel 10 x 7",
            "  taps     70 window positions, all on elements: rows 0 to 9; columns 0 to 6",
            "  The smallest of the 70 values is 0.0, at row 0, column 0.",
            "  No other window contains this element.",
            """
  a global window covers the whole plane, so each axis has one output

     rows: 1 output, from elements 0 to 9
  columns: 1 output, from elements 0 to 6
""",
        ],
    ),
    "a long global sum is cut short": (
        np.ones((1, 1, 20, 30), np.float16),
        PoolSpec("average", global_window=True),
        (0, 0, 0, 0),
        [
            "  sum     = 1.0 + 1.0 + 1.0 + ... + 1.0 (600 terms)",
            "  average = 600.0 / 600 = 1.0",
            "     ... |" + 13 * "  ...",
        ],
    ),
    "tie policy all": (
        TIED,
        PoolSpec("max", 3, tie_policy="all"),
        (0, 0, 0, 0),
        [
            '  ties     tie_policy "all": every tied element receives the whole gradient',
            """
  3 elements equal the output. The mask is 1 at each of them and 0 elsewhere:

  column |  0  1  2
  -------+----------
   row 0 |  1  0  0
   row 1 |  0  1  0
   row 2 |  0  0  1

  mask * g: each of the 3 tied elements receives all of g; the other 6 elements
            receive 0.
  Tied elements (tie_policy "all"): row 0, column 0; row 1, column 1;
  row 2, column 2.

  No other window contains these elements.
""",
        ],
    ),
    "tie policy split": (
        TIED,
        PoolSpec("max", 3, tie_policy="split"),
        (0, 0, 0, 0),
        [
            '  ties     tie_policy "split": tied elements share the gradient equally',
            """
  mask * g / 3: each of the 3 tied elements receives g / 3 = 1.0 / 3 =
                0.3333333333333333; the other 6 elements receive 0.
""",
            "  Checked against the engine: same index, output and gradient, exactly.",
        ],
    ),
    "split between windows that overlap": (
        TIED,
        PoolSpec("max", 2, 1, tie_policy="split"),
        (0, 0, 1, 1),
        [
            """
  Other windows also contain 1 of these 2 elements; a window that selects one
  adds its own gradient.
"""
        ],
    ),
    "split without a tie": (
        TIED,
        PoolSpec("min", 3, tie_policy="split"),
        (0, 0, 0, 0),
        [
            """
  mask * g: row 1, column 2 receives all of g; the other 8 elements receive 0.
  No other element is tied with it (tie_policy "split").
"""
        ],
    ),
    "many ties": (
        np.zeros((1, 1, 100)),
        PoolSpec("max", global_window=True, tie_policy="split"),
        (0, 0, 0),
        [
            "  mask * g / 100: each of the 100 tied elements receives g / 100 = 1.0 / 100 =",
            """
  Tied elements (tie_policy "split"): position 0; position 1; position 2;
  position 3; position 4; position 5; and 94 more.
""",
        ],
    ),
    "NaNs are tied with one another": (
        np.array([NAN, 1.0, NAN, NAN]).reshape(1, 1, 4),
        PoolSpec("min", 4, tie_policy="split"),
        (0, 0, 0),
        [
            "  3 elements are NaN, as is the output. The mask is 1 at each of them and 0",
            '  Tied elements (tie_policy "split"): position 0; position 2; position 3.',
        ],
    ),
    "NaN policy ignore": (
        GAPS,
        PoolSpec("max", 3, nan_policy="ignore"),
        (0, 0, 0, 0),
        [
            '  NaNs     nan_policy "ignore": NaN is skipped',
            """
  2 of the 9 values are NaN and skipped (nan_policy "ignore"). The largest of
  the remaining 7 is 5.0, at row 0, column 0. It is the first of 3 equal values.
""",
        ],
    ),
    "all but one ignored": (
        np.array([NAN, 3.0]).reshape(1, 1, 2),
        PoolSpec("min", 2, nan_policy="ignore", tie_policy="all"),
        (0, 0, 0),
        [
            """
  1 of the 2 values is NaN and skipped (nan_policy "ignore"). The remaining one
  is 3.0, at position 1.
""",
            '  No other element is tied with it (tie_policy "all").',
        ],
    ),
    "a window of ignored NaNs": (
        np.array([NAN, NAN, 3.0]).reshape(1, 1, 3),
        PoolSpec("max", 2, 1, nan_policy="ignore", tie_policy="split"),
        (0, 0, 0),
        [
            """
  The 2 values are all NaN and skipped (nan_policy "ignore"): the output is NaN,
  the index none.

  output[0, 0, 0] = nan
""",
            """
  No element is selected to receive g, so g is dropped.

  The gradient has the shape of the input (3), not of the output (2).
""",
            "  Checked against the engine: same index, output and gradient, exactly.",
        ],
    ),
    "NaN policy error without a NaN": (
        TIED,
        PoolSpec("max", 3, nan_policy="error"),
        (0, 0, 0, 0),
        ['  NaNs     nan_policy "error": a NaN in any window is rejected'],
    ),
    "average of int8": (
        BYTES,
        PoolSpec("average", 3, 2, 1),
        (0, 0, 0, 1),
        [
            "  input    (1, 1, 3, 3) int8, channels first",
            "  output   (1, 1, 2, 2) float32",
            """
  sum     = -87 - 63 + 103 + 67
          = 20
  divisor = 9: 4 taps on elements and 5 in the padding
  average = 20 / 9 = 2.2222222222222223

  output[0, 0, 0, 1] = 2.2222223   (rounded to float32)

  Integers have no gradient, so there is no backward step.

3. Output size
""",
            """
  Checked against the engine: same output, within the rounding of float32
  (1.2e-07).
""",
        ],
    ),
    "sum of int64": (
        HUGE[..., :3],
        PoolSpec("sum", 3),
        (0, 0, 0),
        [
            """
  sum = 4611686018427387904 + 2305843009213693952 - 5
      = 6917529027641081851

  output[0, 0, 0] = 6917529027641081851
""",
            "  Checked against the engine: same output, exactly.",
        ],
    ),
    "sum of uint8": (
        np.full((1, 1, 4), 255, np.uint8),
        PoolSpec("sum", global_window=True),
        (0, 0, 0),
        ["  output   (1, 1, 1) int64", "  output[0, 0, 0] = 1020"],
    ),
    "average of int64": (
        HUGE[..., :3],
        PoolSpec("average", 3),
        (0, 0, 0),
        [
            "  output   (1, 1, 1) float64",
            "  average = 6917529027641081851 / 3 = 2.305843009213694e+18",
        ],
    ),
    "min of int8": (
        BYTES,
        PoolSpec("min", 3),
        (0, 0, 0, 0),
        [
            "  The smallest of the 9 values is -128, at row 2, column 1.",
            "  output[0, 0, 0, 0] = -128",
            "  Checked against the engine: same index and output, exactly.",
        ],
    ),
    "max of int16 without a tap on an element": (
        np.array([[[7]]], np.int16),
        PoolSpec("max", 2, 1, 1, 2),
        (0, 0, 0),
        [
            """
  No tap of this window is on an element. By convention, mode "max" then gives
  -32768, the limit of int16.
"""
        ],
    ),
    "a window of more than 255 taps": (
        np.zeros((1, 1, 16, 16), np.uint8),
        PoolSpec("max", 16),
        (0, 0, 0, 0),
        ['  indices  uint16 in format "window" (65535: none); int64 in "plane" and'],
    ),
}


@pytest.mark.parametrize(("x", "spec", "at", "expected"), CASES.values(), ids=CASES.keys())
def test_the_lines_of_a_case(
    x: Any, spec: PoolSpec, at: tuple[int, ...], expected: list[str]
) -> None:
    text = explain_window(np.ascontiguousarray(x), spec, at)
    for lines in expected:
        assert_has(text, lines)
    assert max(map(len, text.split("\n"))) <= 80


def test_the_command_accepts_adaptive_windows_and_policies(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", TIED)
    options = ["--adaptive-output", "1,2", "--tie-policy", "split", "--nan-policy", "ignore"]
    arguments = ["explain", str(tmp_path / "x.npy"), "--at", "0,0,0,1", *options]
    done = CliRunner().invoke(cli, arguments)
    spec = PoolSpec("max", adaptive_output=(1, 2), tie_policy="split", nan_policy="ignore")
    assert done.output == explain_window(TIED, spec, (0, 0, 0, 1)) + "\n"
    assert_has(
        done.output,
        "  mask * g / 2: each of the 2 tied elements receives g / 2 = 1.0 / 2 = 0.5; the",
    )


@pytest.mark.parametrize("mode", ["max", "sum"])
def test_integers_have_no_backward_section(mode: str) -> None:
    text = explain_window(BYTES, PoolSpec(mode, 3), (0, 0, 0, 0))
    assert "Backward" not in text
    assert "tie_policy" not in text
    assert "upstream" not in text


def test_three_axes_of_a_large_window_take_few_lines() -> None:
    text = explain_window(
        np.ones((1, 1, 9, 50, 50)), PoolSpec("max", global_window=True), (0, 0, 0, 0, 0)
    )
    assert text.count("\n") < 140


@pytest.mark.parametrize(
    ("spec", "lines"),
    [
        (
            PoolSpec("max", 5, tie_policy="split"),
            """
  mask * g / 3: each of the 3 tied elements receives g / 3 = 1 / 3 = 0.333984;
                the other 2 elements receive 0.
""",
        ),
        (PoolSpec("average", 3), "  output[0, 0, 0] = 1.39844   (rounded to bfloat16)"),
        (
            PoolSpec("lp", 3),
            """
  Checked against the engine: same output and gradient, within the rounding of
  bfloat16 (7.8e-03).
""",
        ),
        (PoolSpec("lp", 3, norm_p=np.inf), "  output[0, 0, 0] = 2"),
    ],
)
def test_bfloat16(spec: PoolSpec, lines: str) -> None:
    assert_has(explain_window(bfloat16([1.1, 1.1, 2, 2, 2]), spec, (0, 0, 0)), lines)
