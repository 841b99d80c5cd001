"""`pooling explain`: the text says what the engine computes, in numbers a reader can follow."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from pooling_cli.explain import check as _check
from pooling_engine import (
    InternalError,
    InvalidSpecError,
    InvalidTensorError,
    PoolSpec,
    backward,
    forward,
)
from tests.cli.support import assert_has, explain_seed_example, explain_window

NAN = float("nan")
SMALL = np.array([[5.0, 1.0, 2.0], [3.0, 5.0, -4.0], [0.5, 2.0, 5.0]]).reshape(1, 1, 3, 3)
TABLE = np.arange(1, 17, dtype=np.float32).reshape(1, 1, 4, 4)
RAMP = np.arange(1.0, 6.0).reshape(1, 1, 5)


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
  It is tap 2 of the window, counted row by row from 0.

  output[0, 0, 0, 0] = 12688.05480956
""",
    """
  g = -1.4552119186e-08, the upstream gradient of output[0, 0, 0, 0].

  The output is a copy of one cell. The mask is 1 there and 0 elsewhere:

  column |  0  1  2
  -------+----------
   row 0 |  0  0  1
   row 1 |  0  0  0
   row 2 |  0  0  0

  mask * g: row 0, column 2 receives all of g; the other 8 cells receive 0.
""",
    """
  average: 66920.14032377 / 9 = 7435.571147085556; each of the nine cells
           receives g / 9 = -1.6169021317777777e-09.
  min:     2468.53560093, at row 2, column 0; that cell receives all of g, the
           others 0.
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


def test_the_seed_example_says_what_ties_would_do() -> None:
    text = " ".join(explain_seed_example().split())
    assert "region == max" in text
    assert "each would receive the whole of g (tie policy ALL)" in text
    assert "the first of them alone (tie policy FIRST)" in text


CASES: dict[str, tuple[Any, PoolSpec, tuple[int, ...], list[str]]] = {
    "max with ties": (
        SMALL,
        PoolSpec("max", 3),
        (0, 0, 0, 0),
        [
            """
  The largest of the 9 values is 5.0, at row 0, column 0. It is the first of 3
  equal ones.
  It is tap 0 of the window, counted row by row from 0.
""",
            '  Of equal cells the first alone receives it (tie policy "first").',
            "  Checked against the engine: same cell, output and gradient, exactly.",
        ],
    ),
    "min": (
        SMALL,
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
        SMALL,
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
  Every cell enters the output divided by 4, so each of the 4 cells receives

  g / 4 = 1.0 / 4 = 0.25

  Other windows reach 3 of the 4 cells too and add their shares on top.
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
        SMALL,
        PoolSpec("average", 3, 2, padding=1),
        (0, 0, 0, 0),
        [
            """
  column |  -1    0    1
  -------+----------------
  row -1 |  pad  pad  pad
   row 0 |  pad  5.0  1.0
   row 1 |  pad  3.0  5.0

  pad: the tap is in the padding; it adds nothing.
""",
            "  divisor = 9: 4 taps on elements and 5 in the padding",
        ],
    ),
    "average without the padding": (
        SMALL,
        PoolSpec("average", 3, 2, padding=1, count_include_pad=False),
        (0, 0, 0, 0),
        [
            """
  divisor = 4, the taps on elements; padding does not count (count_include_pad
            is off)
  average = 14.0 / 4 = 3.5
"""
        ],
    ),
    "average with a divisor of its own": (
        SMALL,
        PoolSpec("average", 2, 1, divisor_override=2.5),
        (0, 0, 0, 1),
        ["  divisor = 2.5, set by divisor_override in place of the number of taps"],
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

  pad: the tap is in the padding; it adds nothing.
  over: the tap is beyond the padding, where ceil mode lets the last window hang
        over; it adds nothing.
""",
            """
  sum     = 5.0
  divisor = 2: 1 tap on elements and 1 in the padding; the 1 beyond the padding
            never count
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
             element, 4: it is dropped, and 2 remain
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
            "  Every cell enters the output as it is, so each of the 4 cells receives",
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
            "  taps     3 taps, 2 of them on elements: positions 12 to 14",
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
  |x|^2 of each tap:

  position |   0     1
  ---------+-------------
     value |   9.0  16.0

  sum = 9.0 + 16.0
      = 25.0
  y   = 25.0^(1/2) = 5.0

  output[0, 0, 0] = 5.0
""",
            """
  Each cell receives g * x / y:

  position |   0     1
  ---------+-------------
     value |   0.6  -0.8

  Other windows reach 1 of the 2 cells too and add their shares on top.
""",
        ],
    ),
    "lp of huge values": (
        np.array([3e200, -4e200]).reshape(1, 1, 2),
        PoolSpec("lp", 2, norm_p=3),
        (0, 0, 0),
        [
            """
  m = 4e+200, the largest |x|; a power of it would leave the range of float64,
      so m is divided out first.

  (|x| / m)^3 of each tap:
""",
            "  Each cell receives g * sign(x) * (|x| / y)^2:",
        ],
    ),
    "lp with p = inf": (
        np.array([3.0, -4.0]).reshape(1, 1, 2),
        PoolSpec("lp", 2, norm_p=float("inf")),
        (0, 0, 0),
        [
            "  With p = inf the norm is the largest magnitude: that of -4.0, at position 1.",
            "  mask * g * sign(x): position 1 receives -1.0; the other cell receives 0.",
        ],
    ),
    "NaN": (
        np.array([1.0, NAN, 7.0, NAN]).reshape(1, 1, 4),
        PoolSpec("max", 4),
        (0, 0, 0),
        [
            """
  A NaN outranks every number: selected is the NaN at position 1. It is the
  first of 2 NaNs.
  It is tap 1 of the window, counted from 0.

  output[0, 0, 0] = nan
"""
        ],
    ),
    "NaN in a norm": (
        np.array([1.0, NAN]).reshape(1, 1, 2),
        PoolSpec("lp", 2),
        (0, 0, 0),
        ["  The output is nan, which has no slope; what flows back means nothing."],
    ),
    "no tap on an element": (
        np.array([[[7.0]]]),
        PoolSpec("max", 2, 1, padding=1, dilation=2),
        (0, 0, 0),
        [
            "  taps     2 taps, none on elements: positions -1, 1",
            "  output[0, 0, 0] = -inf",
            "  No cell is there to receive it: it is dropped.",
        ],
    ),
    "an overflowing sum": (
        np.full((1, 1, 2), 1e308),
        PoolSpec("sum", 2),
        (0, 0, 0),
        [
            "  output[0, 0, 0] = inf",
            "  Checked against the engine: same gradient, to the rounding of float64",
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
            "  taps     8 taps, all on elements: depths 1, 2; rows 0, 1; columns 1, 2",
            """
  depth 2:
  column |   1     2
  -------+-------------
   row 0 |  19.0  20.0
   row 1 |  22.0  23.0
""",
            "  The largest of the 8 values is 23.0, at depth 2, row 1, column 2.",
            "  mask * g: depth 2, row 1, column 2 receives all of g; the other 7 cells",
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
            "  here     output[0, 1, 0, 1]: n 0, row 1, column 0, c 1",
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


def test_a_large_window_still_shows_the_selected_cell() -> None:
    x = np.zeros((1, 1, 40, 40))
    x[0, 0, 17, 23] = 9
    assert "   row 17 |" not in explain_window(x * 0, PoolSpec("max", 40), (0, 0, 0, 0))
    lines = explain_window(x, PoolSpec("max", 40), (0, 0, 0, 0)).split("\n")
    (mask,) = (line for line in lines if line.startswith("  row 17 |") and " 1 " in line)
    assert mask.split("|")[1].split().count("1") == 1
    assert max(map(len, lines)) <= 80


def test_the_given_gradient_is_the_one_of_this_output() -> None:
    gradient = np.arange(4.0).reshape(1, 1, 2, 2)
    text = explain_window(SMALL, PoolSpec("max", 2, 1), (0, 0, 1, 0), gradient)
    assert_has(text, "  g = 2.0, the upstream gradient of output[0, 0, 1, 0].")


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ((0, 0, 1), "at is (0, 0, 1), 3 coordinates; the output has shape (1, 1, 2, 2)"),
        ((0, 0, 1, 1, 1), "so it must be 4: n, c, row, column"),
        ((0, 0, 2, 1), "coordinate 2 (row) is 2 but must be from 0 to 1"),
        ((0, 0, 0, -1), "coordinate 3 (column) is -1 but must be from 0 to 1"),
        ((0, 1, 0, 0), "coordinate 1 (c) is 1 but must be from 0 to 0"),
        ((0, 0, 0.5, 0), "it must be 4 integers: n, c, row, column"),
        (3, "at is 3; it must be 4 integers"),
    ],
)
def test_a_wrong_place_is_refused_with_what_is_legal(at: Any, said: str) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        explain_window(SMALL, PoolSpec("max", 2, 1), at)
    assert caught.value.field == "at"
    assert said in str(caught.value)


def test_an_empty_batch_has_no_place() -> None:
    with pytest.raises(InvalidSpecError, match="the batch is empty") as caught:
        explain_window(np.zeros((0, 1, 4)), PoolSpec("max", 2), (0, 0, 0))
    assert caught.value.field == "at"


@pytest.mark.parametrize("gradient", [np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2), np.float32)])
def test_a_gradient_that_does_not_fit_is_refused(gradient: Any) -> None:
    with pytest.raises(InvalidTensorError, match="the output is float64 of shape") as caught:
        explain_window(SMALL, PoolSpec("max", 2, 1), (0, 0, 0, 0), gradient)
    assert caught.value.field == "output_gradient"


@pytest.mark.parametrize("mode", ["max", "min", "average", "sum", "lp"])
@pytest.mark.parametrize("cell", [(0, 0, 0, 0), (0, 0, 0, 2)], ids=["in the window", "beside it"])
def test_a_wrong_gradient_of_the_engine_is_never_explained(
    mode: str, cell: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def backward_wrongly(*args: Any, **options: Any) -> Any:
        gradient = backward(*args, **options)
        gradient[cell] += 1e-5
        return gradient

    monkeypatch.setattr(_check, "backward", backward_wrongly)
    with pytest.raises(InternalError, match="disagree on the gradient"):
        explain_window(TABLE, PoolSpec(mode, 2), (0, 0, 0, 0))


@pytest.mark.parametrize("mode", ["max", "min", "average", "sum", "lp"])
def test_a_wrong_output_of_the_engine_is_never_explained(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward_wrongly(*args: Any, **options: Any) -> Any:
        result = forward(*args, **options)
        result.output[0, 0, 0, 0] += 1e-5
        return result

    monkeypatch.setattr(_check, "forward", forward_wrongly)
    with pytest.raises(InternalError, match="disagree on the output"):
        explain_window(TABLE, PoolSpec(mode, 2), (0, 0, 0, 0))


def test_a_wrong_index_of_the_engine_is_never_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward_wrongly(*args: Any, **options: Any) -> Any:
        result = forward(*args, **options)
        result.indices[...] = 1
        return result

    monkeypatch.setattr(_check, "forward", forward_wrongly)
    with pytest.raises(InternalError, match="disagree on the selected tap: 3 by"):
        explain_window(TABLE, PoolSpec("max", 2), (0, 0, 0, 0))


def test_nothing_is_compiled_for_an_explanation() -> None:
    script = (
        "import sys; from pooling_cli.explain import seed_steps; "
        "seed_steps(); print('numba' in sys.modules)"
    )
    command = [sys.executable, "-c", script]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n", done.stderr


def random_case(rng: np.random.Generator) -> tuple[Any, dict[str, Any]]:
    """A tensor and the arguments of a spec, which may not fit."""
    rank = int(rng.integers(1, 5))
    mode = str(rng.choice(["max", "min", "average", "sum", "lp"]))
    sizes = rng.integers(1, (30, 12, 6, 4)[rank - 1], rank)
    last = bool(rng.random() < 0.3)
    shape = (2, *sizes, 3) if last else (2, 3, *sizes)
    x = rng.standard_normal(shape).astype(rng.choice(["float16", "float32", "float64"]))
    if rng.random() < 0.3:
        x = np.round(x)
    if rng.random() < 0.2:
        x[rng.random(shape) < 0.2] = NAN
    kernel, dilation = rng.integers(1, 5, rank), rng.integers(1, 3, rank)
    extents = (kernel - 1) * dilation + 1
    pads: Any = [(int(rng.integers(0, e)), int(rng.integers(0, e))) for e in extents]
    if rng.random() < 0.3:
        pads = str(rng.choice(["same_upper", "same_lower", "valid"]))
    spec: dict[str, Any] = {
        "mode": mode,
        "kernel": kernel.tolist(),
        "stride": rng.integers(1, 4, rank).tolist(),
        "padding": pads,
        "dilation": dilation.tolist(),
        "ceil_mode": not isinstance(pads, str) and bool(rng.random() < 0.5),
        "layout": "channels_last" if last else "channels_first",
    }
    if mode == "average":
        spec["count_include_pad"] = bool(rng.random() < 0.5)
    if mode == "lp":
        spec["norm_p"] = float(rng.choice([1, 2, 2.5, 7]))
    return x, spec


def test_random_windows_are_explained_and_say_what_the_engine_gives() -> None:
    rng = np.random.default_rng(20240607)
    explained = 0
    for _ in range(200):
        x, arguments = random_case(rng)
        spec = PoolSpec(**arguments)
        try:
            output = forward(x, spec).output
        except InvalidSpecError:  # no window fits
            continue
        at = tuple(int(rng.integers(size)) for size in output.shape)
        gradient = rng.standard_normal(output.shape).astype(x.dtype)
        lines = explain_window(x, spec, at, gradient).split("\n")
        name = f"  output[{', '.join(map(str, at))}] = "
        (stated,) = (line for line in lines if line.startswith(name))
        assert stated.removeprefix(name).split()[0] == str(output[at])
        assert max(map(len, lines)) <= 90
        explained += 1
    assert explained > 100
