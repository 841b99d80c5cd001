"""Specs: accepted options, rejected options and their errors, value semantics."""

from __future__ import annotations

import ast
import copy
import dataclasses
import math
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from pooling_engine import InvalidSpecError, PoolSpec
from tests.support import cases

pytestmark = pytest.mark.once

MAX_INT32 = 2**31 - 1

# (options, field of the error, words of the error)
INVALID_SPECS = (
    ({"mode": "median", "kernel": 2}, "mode", ("'median'", "average")),
    ({"mode": "MAX", "kernel": 2}, "mode", ("'MAX'",)),
    ({"mode": None, "kernel": 2}, "mode", ("None",)),
    ({"mode": [], "kernel": 2}, "mode", ("[]",)),
    ({"kernel": None}, "kernel", ("none",)),
    ({"kernel": 0}, "kernel", ("0", "1")),
    ({"kernel": -2}, "kernel", ("-2",)),
    ({"kernel": 2.0}, "kernel", ("2.0",)),
    ({"kernel": "2"}, "kernel", ("'2'",)),
    ({"kernel": b"2"}, "kernel", ("b'2'",)),
    ({"kernel": True}, "kernel", ("True",)),
    ({"kernel": MAX_INT32 + 1}, "kernel", (str(MAX_INT32 + 1), str(MAX_INT32))),
    ({"kernel": 10**30}, "kernel", (str(10**30),)),
    ({"kernel": ()}, "kernel", ("0 sizes",)),
    ({"kernel": (2,) * 7}, "kernel", ("7 sizes", "6")),
    ({"kernel": (2, 0)}, "kernel[1]", ("0",)),
    ({"kernel": (2, None)}, "kernel[1]", ("None",)),
    ({"kernel": {2, 3}}, "kernel", ()),
    ({"kernel": 2, "stride": 0}, "stride", ("0",)),
    ({"kernel": 2, "stride": (1, -1)}, "stride[1]", ("-1",)),
    ({"kernel": 2, "dilation": 0}, "dilation", ("0",)),
    ({"kernel": 2, "dilation": None}, "dilation", ("None",)),
    ({"kernel": 2, "dilation": math.nan}, "dilation", ("nan",)),
    ({"kernel": 2, "padding": -1}, "padding", ("-1",)),
    ({"kernel": 2, "padding": None}, "padding", ("None",)),
    ({"kernel": 2, "padding": "same"}, "padding", ("'same'", "same_upper")),
    ({"kernel": 2, "padding": 2}, "padding[0][0]", ("2", "less than")),
    ({"kernel": 2, "padding": [(1, 2)]}, "padding[0][1]", ("(1, 2)",)),
    ({"kernel": 2, "padding": [(0, 0), (2, 0)]}, "padding[1][0]", ("(2, 0)", "axis 1")),
    ({"kernel": 3, "dilation": 2, "padding": 5}, "padding[0][0]", ("5",)),
    ({"kernel": 2, "padding": [(0, 0, 0)]}, "padding[0]", ("(0, 0, 0)",)),
    ({"kernel": 2, "padding": [(0, -1)]}, "padding[0][1]", ("-1",)),
    ({"kernel": 2, "padding": []}, "padding", ("0 sizes",)),
    ({"kernel": (2, 2), "stride": (1, 1, 1)}, "kernel", ("kernel 2", "stride 3")),
    ({"kernel": 2, "ceil_mode": 1}, "ceil_mode", ("1", "True")),
    ({"kernel": 2, "ceil_mode": "no"}, "ceil_mode", ("'no'",)),
    ({"kernel": 2, "ceil_mode": True, "padding": "valid"}, "ceil_mode", ("valid",)),
    ({"kernel": 2, "ceil_mode": True, "padding": "same_upper"}, "ceil_mode", ("same_upper",)),
    ({"kernel": 2, "layout": "NCHW"}, "layout", ("'NCHW'", "channels_last")),
    ({"kernel": 2, "tie_policy": "last"}, "tie_policy", ("'last'",)),
    ({"kernel": 2, "nan_policy": "omit"}, "nan_policy", ("'omit'",)),
    ({"kernel": 2, "global_window": 1}, "global_window", ("1",)),
    ({"kernel": 2, "global_window": True}, "global_window", ("kernel", "global_window")),
    ({"kernel": 2, "adaptive_output": 2}, "adaptive_output", ("kernel", "adaptive_output")),
    ({"adaptive_output": 0}, "adaptive_output", ("0",)),
    ({"adaptive_output": 2, "stride": 2}, "stride", ("adaptive_output",)),
    ({"global_window": True, "padding": 1}, "padding", ("global_window",)),
    ({"kernel": 2, "count_include_pad": False}, "count_include_pad", ("average", "max")),
    ({"kernel": 2, "divisor_override": 2}, "divisor_override", ("average", "max")),
    ({"kernel": 2, "norm_p": 3}, "norm_p", ("lp", "max")),
    ({"mode": "sum", "kernel": 2, "tie_policy": "all"}, "tie_policy", ("max", "sum")),
    ({"mode": "lp", "kernel": 2, "nan_policy": "ignore"}, "nan_policy", ("max", "lp")),
    ({"mode": "average", "kernel": 2, "divisor_override": 0}, "divisor_override", ("0", "zero")),
    ({"mode": "average", "kernel": 2, "divisor_override": math.inf}, "divisor_override", ("inf",)),
    ({"mode": "average", "kernel": 2, "divisor_override": math.nan}, "divisor_override", ("nan",)),
    ({"mode": "average", "kernel": 2, "divisor_override": "two"}, "divisor_override", ("'two'",)),
    ({"mode": "average", "kernel": 2, "divisor_override": "2"}, "divisor_override", ("'2'",)),
    ({"mode": "average", "kernel": 2, "divisor_override": True}, "divisor_override", ("True",)),
    ({"mode": "average", "kernel": 2, "count_include_pad": 0}, "count_include_pad", ("0",)),
    ({"mode": "lp", "kernel": 2, "norm_p": 0.99}, "norm_p", ("0.99", "1")),
    ({"mode": "lp", "kernel": 2, "norm_p": -math.inf}, "norm_p", ("-inf",)),
    ({"mode": "lp", "kernel": 2, "norm_p": math.nan}, "norm_p", ("nan",)),
    ({"mode": "lp", "kernel": 2, "norm_p": 2j}, "norm_p", ("2j",)),
    ({"mode": "lp", "kernel": 2, "norm_p": None}, "norm_p", ("None",)),
    ({"mode": "lp", "kernel": 2, "norm_p": "3"}, "norm_p", ("'3'",)),
    ({"mode": "lp", "kernel": 2, "norm_p": 10**400}, "norm_p", ("number",)),
)


@pytest.mark.parametrize(("options", "field", "words"), INVALID_SPECS, ids=cases.name_of)
def test_invalid_options_are_rejected_with_field_and_value(options, field, words):
    with pytest.raises(InvalidSpecError) as error:
        PoolSpec(**{"mode": "max"} | options)
    assert error.value.field == field
    assert isinstance(error.value, ValueError)
    assert error.value.reason == "INVALID_SPEC"
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("kernel", [np.array([[2, 3]]), {2: 3}, iter((2, 2)), "", object()])
def test_objects_other_than_sizes_are_rejected(kernel):
    with pytest.raises(InvalidSpecError) as error:
        PoolSpec("max", kernel)
    assert error.value.field in ("kernel", "kernel[0]")


def test_an_array_without_axes_is_a_size():
    assert PoolSpec("max", np.array(2)) == PoolSpec("max", 2)


@pytest.mark.parametrize(("options", "sizes"), cases.all_cases(), ids=cases.name_of)
def test_valid_options_are_accepted(options, sizes):
    spec = PoolSpec(**options)
    assert hash(spec) == hash(PoolSpec(**options))
    assert spec == PoolSpec(**options)
    assert len(spec.windows(len(sizes))) == len(sizes)


def test_defaults_follow_the_contract():
    spec = PoolSpec("max", 2)
    defaults = {
        "stride": None,
        "padding": 0,
        "dilation": 1,
        "ceil_mode": False,
        "count_include_pad": True,
        "divisor_override": None,
        "norm_p": 2.0,
        "adaptive_output": None,
        "global_window": False,
        "layout": "channels_first",
        "tie_policy": "first",
        "nan_policy": "propagate",
    }
    assert {name: getattr(spec, name) for name in defaults} == defaults
    assert {field.name for field in dataclasses.fields(spec)} == {"mode", "kernel", *defaults}


def test_the_stride_defaults_to_the_kernel():
    windows = PoolSpec("max", (2, 3)).windows(2)
    assert [window.stride for window in windows] == [2, 3]


SAME_SPECS = (
    ({"kernel": [3, 3]}, {"kernel": (3, 3)}),
    ({"kernel": np.int64(3)}, {"kernel": 3}),
    ({"kernel": np.array([3, 2])}, {"kernel": (3, 2)}),
    ({"kernel": 3, "padding": (1, 2)}, {"kernel": 3, "padding": [(1, 1), (2, 2)]}),
    ({"kernel": 3, "padding": [1, (0, 2)]}, {"kernel": 3, "padding": ((1, 1), [0, 2])}),
    ({"kernel": 3, "layout": "channels_first"}, {"kernel": 3}),
)


@pytest.mark.parametrize(("one", "other"), SAME_SPECS, ids=cases.name_of)
def test_specs_with_equal_meaning_are_equal(one, other):
    assert PoolSpec(**{"mode": "max"} | one) == PoolSpec(**{"mode": "max"} | other)


def test_a_spec_is_frozen_and_can_be_copied():
    spec = PoolSpec("average", (3, 2), 2, "same_upper", count_include_pad=False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.kernel = 5
    assert copy.deepcopy(spec) == spec
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert dataclasses.replace(spec, stride=1).stride == 1


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (PoolSpec("max", 3), "PoolSpec('max', kernel=3)"),
        (
            PoolSpec("average", [3, 2], 2, (0, (1, 0)), count_include_pad=False),
            "PoolSpec('average', kernel=(3, 2), stride=2, padding=((0, 0), (1, 0)), "
            "count_include_pad=False)",
        ),
        (PoolSpec("lp", global_window=True, norm_p=np.inf),
         "PoolSpec('lp', norm_p=inf, global_window=True)"),
        (PoolSpec("min", 2, padding="valid", layout="channels_last", tie_policy="all"),
         "PoolSpec('min', kernel=2, padding='valid', layout='channels_last', tie_policy='all')"),
    ],
)  # fmt: skip
def test_the_repr_of_a_spec_creates_it(spec, text):
    assert repr(spec) == text
    assert eval(text, {"PoolSpec": PoolSpec, "inf": np.inf}) == spec


def test_an_unpickled_spec_has_the_same_hash():
    script = "import pickle, pooling_engine as e; print(pickle.dumps(e.PoolSpec('max', 2)))"
    environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": ":".join(sys.path)}
    printed = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, check=True
    ).stdout
    theirs = pickle.loads(ast.literal_eval(printed.decode()))
    assert theirs == PoolSpec("max", 2)
    assert hash(theirs) == hash(PoolSpec("max", 2))


def test_a_list_changed_later_does_not_change_the_spec():
    kernel = [2, 3]
    spec = PoolSpec("max", kernel)
    kernel[0] = 99
    assert spec.kernel == (2, 3)
