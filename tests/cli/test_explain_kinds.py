"""`pooling explain` for adaptive and global windows, tie and NaN policies, and every type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from pooling_cli.explain import check as _check
from pooling_cli.explain.check import round_to
from pooling_cli.main import cli
from pooling_engine import (
    InternalError,
    InvalidSpecError,
    InvalidTensorError,
    PoolSpec,
    backward,
    forward,
)
from pooling_engine.dtypes import BFLOAT16
from tests.cli.support import assert_has, explain_window

NAN = float("nan")
TIED = np.array([[5.0, 1.0, 2.0], [3.0, 5.0, -4.0], [0.5, 2.0, 5.0]]).reshape(1, 1, 3, 3)
GAPS = np.array([[5.0, NAN, 2.0], [3.0, 5.0, -4.0], [NAN, 2.0, 5.0]]).reshape(1, 1, 3, 3)
SQUARES = np.arange(10.0).reshape(1, 1, 10) ** 2
PLANE = np.arange(70, dtype=np.float32).reshape(1, 1, 10, 7)
BYTES = np.array([[-90, -87, -63], [-10, 103, 67], [1, -128, 127]], np.int8).reshape(1, 1, 3, 3)
HUGE = np.array([2**62, 2**61, -5, 2**62], np.int64).reshape(1, 1, 4)


CASES: dict[str, tuple[Any, PoolSpec, tuple[int, ...], list[str]]] = {
    "adaptive along one axis": (
        SQUARES,
        PoolSpec("max", adaptive_output=3),
        (0, 0, 1),
        [
            """
  windows  adaptive: outputs 3, kernel up to 4
  padding  none
  output   (1, 1, 3) float64
  indices  uint8 in format "window", 255 for none; int64 in "plane" and "tensor"
""",
            "  taps     4 taps, all on elements: positions 3 to 6",
            "  The largest of the 4 values is 36.0, at position 6.",
            """
  1 other window reaches this cell too; a window that selects it adds its own
  gradient on top.
""",
            """
  the number of outputs is given; along an axis, window i is from element
  floor(i * size / outputs) up to, but without, ceil((i + 1) * size / outputs)

  positions: window 1 from floor(1 * 10 / 3) = 3 up to ceil(2 * 10 / 3) = 7
""",
        ],
    ),
    "adaptive average along two axes": (
        PLANE,
        PoolSpec("average", adaptive_output=(3, 4)),
        (0, 0, 1, 3),
        [
            "  windows  adaptive: outputs 3 x 4, kernel up to 4 x 3",
            '  divisor  rule "padded_taps": the number of taps on elements or in the padding',
            "  taps     8 taps, all on elements: rows 3 to 6; columns 5, 6",
            "  divisor = 8, the number of taps",
            "  average = 296.0 / 8 = 37.0",
            "  Other windows reach 6 of the 8 cells too and add their shares on top.",
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
  It is tap 10 of the window, counted row by row from 0 as in the largest
  window, 4 x 3.
"""
        ],
    ),
    "adaptive windows of one size": (
        SQUARES,
        PoolSpec("sum", adaptive_output=5),
        (0, 0, 4),
        [
            "  windows  adaptive: outputs 5, kernel 2",
            "  sum = 64.0 + 81.0",
            "  No other window reaches these cells.",
            "  positions: window 4 from floor(4 * 10 / 5) = 8 up to ceil(5 * 10 / 5) = 10",
        ],
    ),
    "global": (
        PLANE,
        PoolSpec("min", global_window=True),
        (0, 0, 0, 0),
        [
            "  windows  global: one window over everything, kernel 10 x 7",
            "  taps     70 taps, all on elements: rows 0 to 9; columns 0 to 6",
            "  The smallest of the 70 values is 0.0, at row 0, column 0.",
            "  No other window reaches this cell.",
            """
  a global window has every element, so each axis has one output

     rows: 1 output, of elements 0 to 9
  columns: 1 output, of elements 0 to 6
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
            '  ties     tie_policy "all": each of equal cells receives the whole gradient',
            """
  3 cells equal the output. The mask is 1 at each of them and 0 elsewhere:

  column |  0  1  2
  -------+----------
   row 0 |  1  0  0
   row 1 |  0  1  0
   row 2 |  0  0  1

  mask * g: each of the 3 equal cells receives all of g; the other 6 cells
            receive 0.
  The equal cells (tie policy "all"): row 0, column 0; row 1, column 1;
  row 2, column 2.

  No other window reaches these cells.
""",
        ],
    ),
    "tie policy split": (
        TIED,
        PoolSpec("max", 3, tie_policy="split"),
        (0, 0, 0, 0),
        [
            '  ties     tie_policy "split": equal cells share the gradient in equal parts',
            """
  mask * g / 3: each of the 3 equal cells receives g / 3 = 1.0 / 3 =
                0.3333333333333333; the other 6 cells receive 0.
""",
            "  Checked against the engine: same cell, output and gradient, exactly.",
        ],
    ),
    "split between windows that overlap": (
        TIED,
        PoolSpec("max", 2, 1, tie_policy="split"),
        (0, 0, 1, 1),
        [
            """
  Other windows reach 1 of these 2 cells too; a window that selects one adds its
  own gradient on top.
"""
        ],
    ),
    "split without a tie": (
        TIED,
        PoolSpec("min", 3, tie_policy="split"),
        (0, 0, 0, 0),
        [
            """
  mask * g: row 1, column 2 receives all of g; the other 8 cells receive 0.
  No other cell equals it (tie policy "split").
"""
        ],
    ),
    "many ties": (
        np.zeros((1, 1, 100)),
        PoolSpec("max", global_window=True, tie_policy="split"),
        (0, 0, 0),
        [
            "  mask * g / 100: each of the 100 equal cells receives g / 100 = 1.0 / 100 =",
            """
  The equal cells (tie policy "split"): position 0; position 1; position 2;
  position 3; position 4; position 5; and 94 more.
""",
        ],
    ),
    "NaNs are tied with one another": (
        np.array([NAN, 1.0, NAN, NAN]).reshape(1, 1, 4),
        PoolSpec("min", 4, tie_policy="split"),
        (0, 0, 0),
        [
            "  3 cells are NaN as the output is. The mask is 1 at each of them and 0",
            '  The equal cells (tie policy "split"): position 0; position 2; position 3.',
        ],
    ),
    "NaN policy ignore": (
        GAPS,
        PoolSpec("max", 3, nan_policy="ignore"),
        (0, 0, 0, 0),
        [
            '  NaNs     nan_policy "ignore": a NaN is skipped',
            """
  2 of the 9 values are NaN and are skipped (nan_policy "ignore"). The largest
  of the 7 left is 5.0, at row 0, column 0. It is the first of 3 equal ones.
""",
        ],
    ),
    "all but one ignored": (
        np.array([NAN, 3.0]).reshape(1, 1, 2),
        PoolSpec("min", 2, nan_policy="ignore", tie_policy="all"),
        (0, 0, 0),
        [
            """
  1 of the 2 values is NaN and is skipped (nan_policy "ignore"). The one left is
  3.0, at position 1.
""",
            '  No other cell equals it (tie policy "all").',
        ],
    ),
    "a window of ignored NaNs": (
        np.array([NAN, NAN, 3.0]).reshape(1, 1, 3),
        PoolSpec("max", 2, 1, nan_policy="ignore", tie_policy="split"),
        (0, 0, 0),
        [
            """
  The 2 values are all NaN and skipped (nan_policy "ignore"): the output is NaN,
  its index none.

  output[0, 0, 0] = nan
""",
            """
  No cell is selected, so none receives it: it is dropped.

  The gradient has the shape of the input (3), not of the output (2).
""",
            "  Checked against the engine: same index, output and gradient, exactly.",
        ],
    ),
    "NaN policy error without a NaN": (
        TIED,
        PoolSpec("max", 3, nan_policy="error"),
        (0, 0, 0, 0),
        ['  NaNs     nan_policy "error": a NaN in any window is refused'],
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
            "  Checked against the engine: same output, to the rounding of float32 (1.2e-07).",
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
            "  Checked against the engine: same cell and output, exactly.",
        ],
    ),
    "max of int16 without a tap on an element": (
        np.array([[[7]]], np.int16),
        PoolSpec("max", 2, 1, 1, 2),
        (0, 0, 0),
        [
            """
  No tap of this window is on an element; by convention, mode "max" then gives
  -32768, the limit of int16.
"""
        ],
    ),
    "a window of more than 255 taps": (
        np.zeros((1, 1, 16, 16), np.uint8),
        PoolSpec("max", 16),
        (0, 0, 0, 0),
        ['  indices  uint16 in format "window", 65535 for none; int64 in "plane" and'],
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


def test_the_command_takes_every_kind(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", TIED)
    options = ["--adaptive-output", "1,2", "--tie-policy", "split", "--nan-policy", "ignore"]
    arguments = ["explain", str(tmp_path / "x.npy"), "--at", "0,0,0,1", *options]
    done = CliRunner().invoke(cli, arguments)
    spec = PoolSpec("max", adaptive_output=(1, 2), tie_policy="split", nan_policy="ignore")
    assert done.output == explain_window(TIED, spec, (0, 0, 0, 1)) + "\n"
    assert_has(
        done.output, "  mask * g / 2: each of the 2 equal cells receives g / 2 = 1.0 / 2 = 0.5; the"
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


def bfloat16(values: list[float]) -> Any:
    """The values as one plane of bfloat16."""
    assert BFLOAT16 is not None
    return np.array(values).astype(BFLOAT16).reshape(1, 1, -1)


@pytest.mark.parametrize(
    ("spec", "lines"),
    [
        (
            PoolSpec("max", 5, tie_policy="split"),
            """
  mask * g / 3: each of the 3 equal cells receives g / 3 = 1 / 3 = 0.333984; the
                other 2 cells receive 0.
""",
        ),
        (PoolSpec("average", 3), "  output[0, 0, 0] = 1.39844   (rounded to bfloat16)"),
        (
            PoolSpec("lp", 3),
            """
  Checked against the engine: same output and gradient, to the rounding of
  bfloat16 (7.8e-03).
""",
        ),
        (PoolSpec("lp", 3, norm_p=np.inf), "  output[0, 0, 0] = 2"),
    ],
)
def test_bfloat16(spec: PoolSpec, lines: str) -> None:
    assert_has(explain_window(bfloat16([1.1, 1.1, 2, 2, 2]), spec, (0, 0, 0)), lines)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("bfloat16", 1 + 2**-8 + 2**-40, 1 + 2**-7),  # a tie in float32, which would go to 1
        ("bfloat16", 1 + 2**-8, 1.0),
        ("bfloat16", -(2.0**-134) * 1.01, -(2.0**-133)),
        ("bfloat16", 1e300, np.inf),
        ("float16", 1 + 2**-11 + 2**-40, 1 + 2**-10),
        ("float16", 65520.0, np.inf),
        ("float16", 2.0**-25, 0.0),
        ("float32", 1 + 2**-24 + 2**-50, 1 + 2**-23),
        ("float64", 0.1, 0.1),
    ],
)
def test_numbers_are_rounded_once(name: str, value: float, expected: float) -> None:
    assert float(round_to(np.dtype(name), np.array([value]))[0]) == expected


@pytest.mark.parametrize("at", [(0, 0, 0), (0, 0, 1)], ids=["in the window", "in another"])
def test_a_nan_is_refused_as_the_engine_does(at: tuple[int, ...]) -> None:
    x = np.array([1.0, NAN, 3.0, 4.0]).reshape(1, 1, 4)
    spec = PoolSpec("max", 2, nan_policy="error")
    with pytest.raises(InvalidTensorError) as engines:
        forward(x, spec)
    with pytest.raises(InvalidTensorError, match="input has a NaN in a window") as ours:
        explain_window(x, spec, at)
    assert str(ours.value) == str(engines.value)
    assert ours.value.field == engines.value.field == "input"


@pytest.mark.parametrize("mode", ["sum", "average"])
@pytest.mark.parametrize("at", [(0, 0, 0), (0, 1, 0)], ids=["in the window", "in another"])
def test_an_overflow_is_refused_as_the_engine_does(mode: str, at: tuple[int, ...]) -> None:
    x = np.array([2**62, 2**62, 1, 2], np.int64).reshape(1, 2, 2)
    with pytest.raises(InvalidTensorError, match="sum overflows") as ours:
        explain_window(x, PoolSpec(mode, 2), at)
    assert ours.value.field == "input"


def test_a_gradient_of_integers_is_refused() -> None:
    gradient = np.ones((1, 1, 1, 1), np.int8)
    with pytest.raises(InvalidTensorError, match="input is int8; integers have no") as caught:
        explain_window(BYTES, PoolSpec("max", 3), (0, 0, 0, 0), gradient)
    assert caught.value.field == "output_gradient"


def test_norms_of_integers_are_refused_as_the_engine_does() -> None:
    with pytest.raises(InvalidTensorError, match='int8; mode "lp" takes float16'):
        explain_window(BYTES, PoolSpec("lp", 3), (0, 0, 0, 0))


def test_a_place_outside_an_adaptive_output_is_refused() -> None:
    with pytest.raises(InvalidSpecError, match=r"coordinate 2 \(position\) is 3") as caught:
        explain_window(SQUARES, PoolSpec("max", adaptive_output=3), (0, 0, 3))
    assert caught.value.field == "at"


WRONG_GRADIENTS = [
    (TIED, PoolSpec("max", 3, tie_policy="all")),
    (TIED, PoolSpec("max", 3, tie_policy="split")),
    (TIED, PoolSpec("average", adaptive_output=2)),
    (GAPS, PoolSpec("max", global_window=True, nan_policy="ignore")),
    (bfloat16([1.0, 1.0, 1.0]), PoolSpec("max", 3, tie_policy="split")),
]


@pytest.mark.parametrize(("x", "spec"), WRONG_GRADIENTS)
def test_a_wrong_gradient_of_the_engine_is_never_explained(
    x: Any, spec: PoolSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backward_wrongly(*args: Any, **options: Any) -> Any:
        gradient = backward(*args, **options)
        gradient.reshape(-1)[0] += gradient.dtype.type(0.01)
        return gradient

    monkeypatch.setattr(_check, "backward", backward_wrongly)
    with pytest.raises(InternalError, match="disagree on the gradient"):
        explain_window(x, spec, (0,) * x.ndim)


WRONG_OUTPUTS = [
    (BYTES, PoolSpec("sum", 3)),
    (BYTES, PoolSpec("average", 3)),
    (BYTES, PoolSpec("max", 3)),
    (HUGE[..., :3].copy(), PoolSpec("sum", 3)),
    (np.array([[[7]]], np.int16), PoolSpec("min", 2, 1, 1, 2)),
    (SQUARES, PoolSpec("max", adaptive_output=3)),
    (PLANE, PoolSpec("sum", global_window=True)),
]


@pytest.mark.parametrize(("x", "spec"), WRONG_OUTPUTS)
def test_a_wrong_output_of_the_engine_is_never_explained(
    x: Any, spec: PoolSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward_wrongly(*args: Any, **options: Any) -> Any:
        result = forward(*args, **options)
        result.output[...] -= 1
        return result

    monkeypatch.setattr(_check, "forward", forward_wrongly)
    with pytest.raises(InternalError, match="disagree on the output"):
        explain_window(x, spec, (0,) * x.ndim)


def test_a_nan_that_the_engine_lets_through_is_never_explained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forward_leniently(x: Any, spec: PoolSpec, **options: Any) -> Any:
        return forward(x, PoolSpec(spec.mode, spec.kernel), **options)

    monkeypatch.setattr(_check, "forward", forward_leniently)
    with pytest.raises(InternalError, match="disagree on a NaN in the window: refused by"):
        explain_window(GAPS, PoolSpec("max", 3, nan_policy="error"), (0, 0, 0, 0))


def random_tensor(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Any:
    """A tensor with ties, and NaNs in some of floating point."""
    if name.startswith(("int", "uint")):
        limits = np.iinfo(name)
        most = int(limits.max) // 64
        return rng.integers(max(int(limits.min) // 64, -most), most + 1, shape).astype(name)
    x = np.round(rng.standard_normal(shape) * 2) / 2
    if rng.random() < 0.3:
        x[rng.random(shape) < 0.4] = NAN
    return x.astype(np.dtype(name))


def random_spec(rng: np.random.Generator, name: str, rank: int, last: bool) -> PoolSpec:
    """A spec of any kind of window that the type allows."""
    is_float = "float" in name
    mode = str(rng.choice(["max", "min", "average", "sum", "lp"][: 5 if is_float else 4]))
    options: dict[str, Any] = {"layout": "channels_last" if last else "channels_first"}
    kind = rng.integers(3)
    if kind == 0:
        options["global_window"] = True
    elif kind == 1:
        options["adaptive_output"] = rng.integers(1, 7, rank).tolist()
    else:
        options |= {"kernel": 2, "stride": int(rng.integers(1, 3)), "padding": "same_lower"}
    if mode in ("max", "min"):
        options["tie_policy"] = str(rng.choice(["first", "all", "split"]))
        options["nan_policy"] = str(rng.choice(["propagate", "ignore", "error"]))
    return PoolSpec(mode, **options)


TYPES = ["bfloat16", "float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64"]


@pytest.mark.parametrize("name", TYPES)
def test_random_windows_are_explained_and_say_what_the_engine_gives(name: str) -> None:
    rng = np.random.default_rng(20250131)
    explained = 0
    for _ in range(60):
        rank, last = int(rng.integers(1, 4)), bool(rng.random() < 0.3)
        sizes = tuple(map(int, rng.integers(1, (30, 9, 5)[rank - 1], rank)))
        shape = (2, *sizes, 3) if last else (2, 3, *sizes)
        x, spec = random_tensor(rng, name, shape), random_spec(rng, name, rank, last)
        try:
            output = forward(x, spec).output
        except InvalidTensorError as error:  # a NaN, where it is an error
            with pytest.raises(InvalidTensorError, match=str(error)):
                explain_window(x, spec, (0,) * x.ndim)
            continue
        at = tuple(int(rng.integers(size)) for size in output.shape)
        gradient = rng.standard_normal(output.shape).astype(x.dtype) if "float" in name else None
        lines = explain_window(x, spec, at, gradient).split("\n")
        start = f"  output[{', '.join(map(str, at))}] = "
        (stated,) = (line for line in lines if line.startswith(start))
        assert stated.removeprefix(start).split()[0] == str(output[at])
        assert max(map(len, lines)) <= 90
        explained += 1
    assert explained > 40
