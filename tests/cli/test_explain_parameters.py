"""`pooling explain --shape`: the resolved parameters of a spec, without a tensor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

import pooling_engine
from pooling_cli.main import cli
from pooling_cli.options import TYPE_NAMES
from pooling_engine import (
    DivisorRule,
    InternalError,
    InvalidSpecError,
    InvalidTensorError,
    PoolSpec,
)
from pooling_engine.dtypes import FLOATS, INTEGERS
from tests.cli.support import explain_spec

SEED = (10, 16, 14, 14)

WHOLE = """\
Max pooling, resolved parameters
================================

  input    (10, 16, 14, 14) float32, channels first
  windows  kernel 3 x 3, stride 2 x 2, dilation 1 x 1
  padding  "same_upper": rows 0 before, 1 after; columns 0 before, 1 after
  output   (10, 16, 7, 7) float32
  indices  uint8 in format "window" (255: none); int64 in "plane" and "tensor"
  ties     tie_policy "first": the first tied element receives the gradient
  NaNs     nan_policy "propagate": NaN outranks every number

Output size

  outputs = ceil(size / stride)
  padding = max(0, (outputs - 1) * stride + kernel - size), in two halves;
            if it is odd, the larger half goes after ("same_upper")

     rows: ceil(14 / 2) = 7
           padding max(0, (7 - 1) * 2 + 3 - 14) = 1: 0 before, 1 after
  columns: ceil(14 / 2) = 7
           padding max(0, (7 - 1) * 2 + 3 - 14) = 1: 0 before, 1 after

  Checked against the engine's plan: same parameters.
"""

CASES: dict[str, tuple[PoolSpec, tuple[int, ...], str, list[str]]] = {
    "stride defaults to the kernel": (
        PoolSpec("max", (3, 2)),
        SEED,
        "float16",
        ["  windows  kernel 3 x 2, stride 3 x 2, dilation 1 x 1", "  padding  none"],
    ),
    "padding of one size": (
        PoolSpec("sum", 3, 2, 1),
        SEED,
        "float32",
        ["  padding  1 on every side"],
    ),
    "padding for each side": (
        PoolSpec("average", (3, 5), 2, ((1, 0), (2, 2)), (1, 2), ceil_mode=True),
        SEED,
        "int8",
        [
            "  windows  kernel 3 x 5, stride 2 x 2, dilation 1 x 2, ceil mode",
            "  padding  rows 1 before, 0 after; columns 2 before, 2 after",
            "  output   (10, 16, 7, 6) float32",
            '  divisor  rule "padded_taps": the number of taps on elements or in the padding',
        ],
    ),
    "the larger half before": (
        PoolSpec("min", 4, 3, "same_lower", layout="channels_last"),
        (2, 12, 3),
        "int64",
        [
            "  input    (2, 12, 3) int64, channels last",
            '  padding  "same_lower": positions 1 before, 0 after',
            "  output   (2, 4, 3) int64",
        ],
    ),
    "valid": (
        PoolSpec("sum", 2, padding="valid"),
        (0, 16, 30),
        "int32",
        ['  padding  "valid": none', "  output   (0, 16, 15) int64"],
    ),
    "divisor without the padding": (
        PoolSpec("average", 3, count_include_pad=False),
        SEED,
        "int64",
        [
            "  output   (10, 16, 4, 4) float64",
            '  divisor  rule "valid_taps": the number of taps on elements',
        ],
    ),
    "divisor override": (
        PoolSpec("average", 3, divisor_override=2.5),
        SEED,
        "float64",
        ['  divisor  rule "override": 2.5, instead of the number of taps'],
    ),
    "adaptive": (
        PoolSpec("min", adaptive_output=(7, 2)),
        (1, 1, 30, 3),
        "float16",
        [
            "  windows  adaptive: output size 7 x 2, kernel up to 6 x 2",
            "  output   (1, 1, 7, 2) float16",
            """
     rows: window 0 from floor(0 * 30 / 7) = 0 up to ceil(1 * 30 / 7) = 5
           window 1 from floor(1 * 30 / 7) = 4 up to ceil(2 * 30 / 7) = 9
           window 2 from floor(2 * 30 / 7) = 8 up to ceil(3 * 30 / 7) = 13
           window 3 from floor(3 * 30 / 7) = 12 up to ceil(4 * 30 / 7) = 18
           ...
           window 6 from floor(6 * 30 / 7) = 25 up to ceil(7 * 30 / 7) = 30
  columns: window 0 from floor(0 * 3 / 2) = 0 up to ceil(1 * 3 / 2) = 2
           window 1 from floor(1 * 3 / 2) = 1 up to ceil(2 * 3 / 2) = 3
""",
        ],
    ),
    "global": (
        PoolSpec("max", global_window=True, tie_policy="split", nan_policy="error"),
        (10, 16, 30, 64),
        "bfloat16",
        [
            "  windows  global: one window per plane, kernel 30 x 64",
            "  output   (10, 16, 1, 1) bfloat16",
            """
  indices  uint16 in format "window" (65535: none); int64 in "plane" and
           "tensor"
  ties     tie_policy "split": tied elements share the gradient equally
  NaNs     nan_policy "error": a NaN in any window is rejected
""",
        ],
    ),
    "as many taps as an index can have": (
        PoolSpec("max", 255),
        (1, 1, 255),
        "uint8",
        ['  indices  uint8 in format "window" (255: none); int64 in "plane" and "tensor"'],
    ),
    "more taps than an index can number": (
        PoolSpec("max", 100000, padding=50000),
        (1, 1, 3, 3),
        "int32",
        [
            """
  indices  none: a window has 10000000000 taps; an index numbers at most
           4294967295
""",
            """
     rows: floor((3 + 50000 + 50000 - 100000) / 100000) + 1
           = floor(3 / 100000) + 1 = 1
""",
        ],
    ),
    "norm": (
        PoolSpec("lp", 2, norm_p=1.5),
        SEED,
        "float64",
        ["Lp pooling with p = 1.5, resolved parameters"],
    ),
}


def explained(*arguments: str) -> str:
    """Return the output of the command."""
    done = CliRunner().invoke(cli, ["explain", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command_prints_every_line() -> None:
    options = ("--kernel", "3", "--stride", "2", "--padding", "same_upper")
    assert explained("--shape", "10,16,14,14", *options) == WHOLE


@pytest.mark.parametrize(("spec", "shape", "dtype", "expected"), CASES.values(), ids=CASES.keys())
def test_the_lines_of_a_case(
    spec: PoolSpec, shape: tuple[int, ...], dtype: str, expected: list[str]
) -> None:
    text = explain_spec(spec, shape, dtype)
    for lines in expected:
        block = lines.strip("\n")
        assert f"\n{block}\n" in f"\n{text}\n", f"{block}\n\nis not in\n\n{text}"
    assert max(map(len, text.split("\n"))) <= 80


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            ("--adaptive-output", "7,5"),
            "  windows  adaptive: output size 7 x 5, kernel up to 2 x 4",
        ),
        (("--global-window",), "  windows  global: one window per plane, kernel 14 x 14"),
        (("--kernel", "3", "--tie-policy", "all"), '  ties     tie_policy "all": every tied'),
        (("--kernel", "3", "--nan-policy", "ignore"), '  NaNs     nan_policy "ignore": NaN is'),
        (("--kernel", "3", "--dtype", "bfloat16"), "  output   (10, 16, 4, 4) bfloat16"),
        (("--kernel", "3", "--dtype", "uint8"), "  output   (10, 16, 4, 4) uint8"),
    ],
)
def test_the_options_of_the_command(options: tuple[str, ...], line: str) -> None:
    assert f"\n{line}" in explained("--shape", "10,16,14,14", *options)


def test_the_command_offers_every_element_type() -> None:
    assert set(TYPE_NAMES) == {dtype.name for dtype in FLOATS + INTEGERS}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--shape", "1,1,4", "--at", "0,0,0"), "cannot be combined with --at or --gradient"),
        (("x.npy", "--shape", "1,1,4"), "--shape replaces INPUT.npy"),
        (
            ("--shape", "1,1,4", "--gradient", "y.npy"),
            "cannot be combined with --at or --gradient",
        ),
        (("--shape", "1,1,4", "--dtype", "float33"), "'float33' is not one of 'float16', "),
        (("--shape", "1,x"), "'1,x' is not of the form"),
        (("x.npy", "--at", "0,0,0", "--dtype", "int8"), "--dtype requires --shape"),
        (("--dtype", "int8"), "give INPUT.npy and --at N,C,I,J, or --shape, or --seed-example"),
    ],
)
def test_options_that_exclude_one_another_are_rejected(
    arguments: tuple[str, ...], said: str
) -> None:
    done = CliRunner().invoke(cli, ["explain", *arguments, "--kernel", "2"])
    assert done.exit_code == 2
    assert said in done.output


@pytest.mark.parametrize(
    ("spec", "shape", "dtype", "kind", "field", "said"),
    [
        (PoolSpec("max", 3), (10, 16), "int8", InvalidTensorError, "input", r"has 2 axes"),
        (PoolSpec("max", 3), (1, 1, 0), "int8", InvalidTensorError, "input", r"N may be zero"),
        (PoolSpec("lp", 3), SEED, "int8", InvalidTensorError, "input", r'"lp" accepts float16'),
        (PoolSpec("max", 20), SEED, "int8", InvalidSpecError, "kernel[0]", r"has no output"),
        (PoolSpec("max", adaptive_output=(2, 3)), (1, 1, 4), "int8", InvalidSpecError,
         "adaptive_output", r"for 2 spatial axes, but the tensor has 1"),
    ],
)  # fmt: skip
def test_a_spec_that_does_not_fit_is_rejected_with_the_engine_s_error(
    spec: PoolSpec, shape: tuple[int, ...], dtype: str, kind: Any, field: str, said: str
) -> None:
    with pytest.raises(kind, match=said) as caught:
        explain_spec(spec, shape, dtype)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("attribute", "wrong", "said"),
    [
        ("output_shape", (10, 16, 6, 7), r"output_shape: \(10, 16, 7, 7\) by"),
        ("taps", 10, "taps: 9 by the arithmetic of one window, 10 by the engine"),
        ("count_include_pad", False, f"divisor_rule: {DivisorRule.PADDED_TAPS} by"),
    ],
)
def test_a_plan_with_other_parameters_is_an_internal_error(
    attribute: str, wrong: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = PoolSpec("average", 3, 2, "same_upper")
    plan = replace(pooling_engine.plan(spec, SEED, "float32"), **{attribute: wrong})
    monkeypatch.setattr(pooling_engine, "plan", lambda *_: plan)
    with pytest.raises(InternalError, match=f"disagree on the parameter {said}"):
        explain_spec(spec, SEED, "float32")
