"""`pooling explain`: golden lines of sliding windows in every mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pooling_engine import PoolSpec
from tests.cli.support import NAN, RAMP, TIED, assert_has, explain_seed_example, explain_window

SEED_BLOCKS = [
    """
  column |        0               1               2
  -------+-------------------------------------------------
   row 0 |   5241.0743993   12349.96024235  12688.05480956
   row 1 |   5107.94168207   7228.75050703   8462.73752744
   row 2 |   2468.53560093   5849.12001444   7523.96554065
""",
    """
  The largest of the 9 values is 12688.05480956, at row 0, column 2.
  Its index is 2, counted from 0 row by row in the window.

  output[0, 0, 0, 0] = 12688.05480956
""",
    """
  g = -1.4552119186e-08, the upstream gradient of output[0, 0, 0, 0].

  The output is a copy of one element. The mask is 1 there and 0 elsewhere:

  column |  0  1  2
  -------+----------
   row 0 |  0  0  1
   row 1 |  0  0  0
   row 2 |  0  0  0

  mask * g: row 0, column 2 receives all of g; the other 8 elements receive 0.
""",
    """
  average: 66920.14032377 / 9 = 7435.571147085556; each of the nine elements
           receives g / 9 = -1.6169021317777777e-09.
  min:     2468.53560093, at row 2, column 0; that element receives all of g,
           the others 0.
""",
    """
     rows: floor((14 + 0 + 0 - 3) / 2) + 1 = floor(11 / 2) + 1 = 6
  columns: floor((14 + 0 + 0 - 3) / 2) + 1 = floor(11 / 2) + 1 = 6

  The gradient has the shape of the input (14 x 14), not of the output (6 x 6).
""",
]


@pytest.mark.parametrize("expected", SEED_BLOCKS)
def test_the_seed_example_in_golden_lines(expected: str) -> None:
    assert_has(explain_seed_example(), expected)


def test_the_seed_example_describes_ties() -> None:
    text = " ".join(explain_seed_example().split())
    assert "region == max" in text
    assert 'each would receive all of g (tie_policy "all")' in text
    assert 'only the first of them receives it (tie_policy "first")' in text


CASES: dict[str, tuple[Any, PoolSpec, tuple[int, ...], list[str]]] = {
    "max with ties": (
        TIED,
        PoolSpec("max", 3),
        (0, 0, 0, 0),
        [
            """
  The largest of the 9 values is 5.0, at row 0, column 0. It is the first of 3
  equal values.
  Its index is 0, counted from 0 row by row in the window.
""",
            '  Of the tied elements, only the first receives it (tie_policy "first").',
            "  Checked against the engine: same index, output and gradient, exactly.",
        ],
    ),
    "min": (
        TIED,
        PoolSpec("min", 3),
        (0, 0, 0, 0),
        [
            "  The smallest of the 9 values is -4.0, at row 1, column 2.",
            "  output[0, 0, 0, 0] = -4.0",
            """
  column |  0  1  2
  -------+----------
   row 0 |  0  0  0
   row 1 |  0  0  1
   row 2 |  0  0  0
""",
        ],
    ),
    "average": (
        TIED,
        PoolSpec("average", 2, 1),
        (0, 0, 0, 1),
        [
            """
  sum     = 1.0 + 2.0 + 5.0 - 4.0
          = 4.0
  divisor = 4, the number of taps
  average = 4.0 / 4 = 1.0

  output[0, 0, 0, 1] = 1.0
""",
            """
  The output is the sum divided by 4, so each of the 4 elements receives

  g / 4 = 1.0 / 4 = 0.25

  Other windows also contain 3 of the 4 elements and add their own shares.
  The gradient has the shape of the input (3 x 3), not of the output (2 x 2).
""",
        ],
    ),
    "average of float32": (
        np.array([0.1, 0.2], np.float32).reshape(1, 1, 2),
        PoolSpec("average", 2),
        (0, 0, 0),
        [
            "          = 0.30000000447034836   (of the exact float32 values)",
            "  output[0, 0, 0] = 0.15   (rounded to float32)",
        ],
    ),
    "average that counts the padding": (
        TIED,
        PoolSpec("average", 3, 2, padding=1),
        (0, 0, 0, 0),
        [
            """
  column |  -1    0    1
  -------+----------------
  row -1 |  pad  pad  pad
   row 0 |  pad  5.0  1.0
   row 1 |  pad  3.0  5.0

  pad: a tap in the padding; it adds nothing.
""",
            "  divisor = 9: 4 taps on elements and 5 in the padding",
        ],
    ),
    "average without the padding": (
        TIED,
        PoolSpec("average", 3, 2, padding=1, count_include_pad=False),
        (0, 0, 0, 0),
        [
            """
  divisor = 4, the number of taps on elements; count_include_pad is off
  average = 14.0 / 4 = 3.5
"""
        ],
    ),
    "average with divisor_override": (
        TIED,
        PoolSpec("average", 2, 1, divisor_override=2.5),
        (0, 0, 0, 1),
        ["  divisor = 2.5, set by divisor_override"],
    ),
    "ceil mode": (
        RAMP,
        PoolSpec("average", 3, 2, padding=((0, 1),), ceil_mode=True),
        (0, 0, 2),
        [
            """
  position |   4     5     6
  ---------+-------------------
     value |   5.0   pad  over

  pad: a tap in the padding; it adds nothing.
  over: a tap beyond the padding, where ceil mode lets the last window overhang;
        it adds nothing.
""",
            """
  sum     = 5.0
  divisor = 2: 1 tap on elements and 1 in the padding; those beyond the padding
            (1) never count
""",
            "  positions: ceil((5 + 0 + 1 - 3) / 2) + 1 = ceil(3 / 2) + 1 = 3",
        ],
    ),
    "ceil mode, corrected": (
        RAMP,
        PoolSpec("max", 1, 3, ceil_mode=True),
        (0, 0, 1),
        [
            """
  positions: ceil((5 + 0 + 0 - 1) / 3) + 1 = ceil(4 / 3) + 1 = 3
             but the last would start at (3 - 1) * 3 - 0 = 6, past the last
             element (4), so it is dropped: 2 remain
"""
        ],
    ),
    "dilation": (
        np.arange(25.0).reshape(1, 1, 5, 5),
        PoolSpec("sum", 2, 1, dilation=(1, 3)),
        (0, 0, 1, 1),
        [
            """
  column |   1     4
  -------+-------------
   row 1 |   6.0   9.0
   row 2 |  11.0  14.0
""",
            """
  sum = 6.0 + 9.0 + 11.0 + 14.0
      = 40.0

  output[0, 0, 1, 1] = 40.0
""",
            "  The output is the sum of the elements, so each of the 4 elements receives",
            """
  columns: e = (2 - 1) * 3 + 1 = 4
           floor((5 + 0 + 0 - 4) / 1) + 1 = floor(1 / 1) + 1 = 2
""",
        ],
    ),
    "named padding": (
        np.ones((1, 1, 14)),
        PoolSpec("sum", 3, 2, "same_upper"),
        (0, 0, 6),
        [
            "  taps     3 window positions, 2 of them on elements: positions 12 to 14",
            """
  positions: ceil(14 / 2) = 7
             padding max(0, (7 - 1) * 2 + 3 - 14) = 1: 0 before, 1 after
""",
        ],
    ),
    "lp": (
        np.array([3.0, -4.0, 12.0]).reshape(1, 1, 3),
        PoolSpec("lp", 2, 1),
        (0, 0, 0),
        [
            """
  |x|^2 of each element:

  position |   0     1
  ---------+-------------
     value |   9.0  16.0

  sum = 9.0 + 16.0
      = 25.0
  y   = 25.0^(1/2) = 5.0

  output[0, 0, 0] = 5.0
""",
            """
  Each element receives g * x / y:

  position |   0     1
  ---------+-------------
     value |   0.6  -0.8

  Other windows also contain 1 of the 2 elements and add their own shares.
""",
        ],
    ),
    "lp of huge values": (
        np.array([3e200, -4e200]).reshape(1, 1, 2),
        PoolSpec("lp", 2, norm_p=3),
        (0, 0, 0),
        [
            """
  m = 4e+200, the largest |x|. Its power would leave the range of float64, so
      each |x| is divided by m first.

  (|x| / m)^3 of each element:
""",
            "  Each element receives g * sign(x) * (|x| / y)^2:",
        ],
    ),
    "lp with p = inf": (
        np.array([3.0, -4.0]).reshape(1, 1, 2),
        PoolSpec("lp", 2, norm_p=float("inf")),
        (0, 0, 0),
        [
            "  With p = inf the norm is the largest magnitude: that of -4.0, at position 1.",
            "  mask * g * sign(x): position 1 receives -1.0; the other element receives 0.",
        ],
    ),
    "NaN": (
        np.array([1.0, NAN, 7.0, NAN]).reshape(1, 1, 4),
        PoolSpec("max", 4),
        (0, 0, 0),
        [
            """
  NaN outranks every number: the NaN at position 1 is selected. It is the first
  of 2 NaNs.
  Its index is 1, counted from 0 in the window.

  output[0, 0, 0] = nan
"""
        ],
    ),
    "NaN in a norm": (
        np.array([1.0, NAN]).reshape(1, 1, 2),
        PoolSpec("lp", 2),
        (0, 0, 0),
        ["  The output is nan, where the gradient is undefined."],
    ),
    "no tap on an element": (
        np.array([[[7.0]]]),
        PoolSpec("max", 2, 1, padding=1, dilation=2),
        (0, 0, 0),
        [
            "  taps     2 window positions, none on elements: positions -1, 1",
            "  output[0, 0, 0] = -inf",
            "  The window has no element to receive g, so g is dropped.",
        ],
    ),
    "an overflowing sum": (
        np.full((1, 1, 2), 1e308),
        PoolSpec("sum", 2),
        (0, 0, 0),
        [
            "  output[0, 0, 0] = inf",
            "  Checked against the engine: same gradient, within the rounding of float64",
        ],
    ),
    "one axis in panels": (
        np.linspace(0, 1, 8).reshape(1, 1, 8) / 3,
        PoolSpec("max", 8),
        (0, 0, 0),
        [
            """
  position |           6                     7
  ---------+---------------------------------------------
     value |  0.2857142857142857    0.3333333333333333
"""
        ],
    ),
    "three axes": (
        np.arange(27.0).reshape(1, 1, 3, 3, 3),
        PoolSpec("max", 2, 1),
        (0, 0, 1, 0, 1),
        [
            """
  taps     8 window positions, all on elements: depths 1, 2; rows 0, 1;
           columns 1, 2
""",
            """
  depth 2:
  column |   1     2
  -------+-------------
   row 0 |  19.0  20.0
   row 1 |  22.0  23.0
""",
            "  The largest of the 8 values is 23.0, at depth 2, row 1, column 2.",
            "  mask * g: depth 2, row 1, column 2 receives all of g; the other 7 elements",
        ],
    ),
    "six axes": (
        np.arange(64.0).reshape(1, 1, 2, 2, 2, 2, 2, 2),
        PoolSpec("max", 2),
        (0,) * 8,
        [
            """
  The largest of the 64 values is 63.0, at
  D1 1, D2 1, D3 1, D4 1, row 1, column 1.
""",
            "  D1 1, D2 1, D3 1, D4 1:",
        ],
    ),
    "channels last": (
        np.arange(32.0).reshape(1, 4, 4, 2),
        PoolSpec("min", 2, layout="channels_last"),
        (0, 1, 0, 1),
        [
            "  input    (1, 4, 4, 2) float64, channels last",
            "  output   (1, 2, 2, 2) float64",
            "  explains output[0, 1, 0, 1]: n 0, row 1, column 0, c 1",
            "  The smallest of the 4 values is 17.0, at row 2, column 0.",
        ],
    ),
    "a large window": (
        np.eye(40).reshape(1, 1, 40, 40)[..., ::-1, :] * 1.5,
        PoolSpec("max", 40),
        (0, 0, 0, 0),
        ["     ... |" + 13 * "  ..."],
    ),
}


@pytest.mark.parametrize(("x", "spec", "at", "expected"), CASES.values(), ids=CASES.keys())
def test_the_lines_of_a_case(
    x: Any, spec: PoolSpec, at: tuple[int, ...], expected: list[str]
) -> None:
    text = explain_window(x, spec, at)
    for lines in expected:
        assert_has(text, lines)


def test_a_large_window_still_shows_the_selected_element() -> None:
    x = np.zeros((1, 1, 40, 40))
    x[0, 0, 17, 23] = 9
    assert "   row 17 |" not in explain_window(x * 0, PoolSpec("max", 40), (0, 0, 0, 0))
    lines = explain_window(x, PoolSpec("max", 40), (0, 0, 0, 0)).split("\n")
    (mask,) = (line for line in lines if line.startswith("  row 17 |") and " 1 " in line)
    assert mask.split("|")[1].split().count("1") == 1
    assert max(map(len, lines)) <= 80


def test_the_given_gradient_is_read_at_the_explained_output() -> None:
    gradient = np.arange(4.0).reshape(1, 1, 2, 2)
    text = explain_window(TIED, PoolSpec("max", 2, 1), (0, 0, 1, 0), gradient)
    assert_has(text, "  g = 2.0, the upstream gradient of output[0, 0, 1, 0].")
