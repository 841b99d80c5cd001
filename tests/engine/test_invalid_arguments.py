"""Invalid arguments in every mode: rejected, with the field named."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pooling_engine import (
    InvalidSpecError,
    InvalidTensorError,
    Mode,
    PoolSpec,
    backward,
    forward,
)
from tests.support import cases, oracle

once = pytest.mark.once
MODES = tuple(Mode)
SELECTING = ("max", "min")
MOST = 2**31 - 1

ABSURD = (0, -1, -(2**62), MOST + 1, 2**62, 2**63, 10**30)


@once
@pytest.mark.parametrize("value", ABSURD)
@pytest.mark.parametrize("option", ["kernel", "stride", "dilation", "padding", "adaptive_output"])
@pytest.mark.parametrize("mode", MODES)
def test_sizes_out_of_range(mode, option, value):
    if (option, value) == ("padding", 0):
        value = -2
    window = {} if option == "adaptive_output" else {"kernel": 2}
    for size, field in ((value, option), ((1, value), f"{option}[1]")):
        with pytest.raises(InvalidSpecError) as error:
            PoolSpec(mode, **window | {option: size})
        assert error.value.field.removesuffix("[0]") == field
        assert str(value) in str(error.value)


@pytest.mark.parametrize("mode", MODES)
def test_the_largest_sizes(mode):
    """The window has 2^31 - 1 taps, of which only the last two are on elements."""
    options = {"norm_p": 1} if mode == "lp" else {}
    spec = PoolSpec(mode, MOST, MOST, [(MOST - 2, 0)], **options)
    x, dy = np.array([[[1.0, 2.0, 4.0]]]), np.array([[[10.0]]])
    output = {"max": 2, "min": 1, "average": 3 / MOST}.get(mode, 3)
    assert forward(x, spec).output.tolist() == [[[output]]]
    residual = {"input": x} if mode in (*SELECTING, "lp") else {"input_shape": x.shape}
    shares = {"max": [0, 10, 0], "min": [10, 0, 0], "average": [10 / MOST, 10 / MOST, 0]}
    dx = backward(dy, spec, **residual)
    assert dx[0, 0].tolist() == shares.get(mode, [10, 10, 0])
    if mode in SELECTING:
        indices = forward(x, spec, return_indices=True).indices
        assert indices.tolist() == [[[MOST - 1 if mode == "max" else MOST - 2]]]


@pytest.mark.parametrize("mode", MODES)
def test_strides_beyond_the_input_leave_one_window(mode):
    options = {"mode": mode, "kernel": 2, "stride": MOST, "dilation": 2}
    x = cases.normal((1, 2, 5), "float64")
    oracle.assert_close(
        forward(x, PoolSpec(**options)).output, cases.expected_forward(options, x).output, ulps=4
    )
    with pytest.raises(InvalidSpecError, match="no output") as error:
        forward(x, PoolSpec(mode, 2, dilation=MOST))
    assert error.value.field == "kernel[0]"


# (option, a value other than its default, the modes that it applies to)
OPTIONS = (
    ("count_include_pad", False, {"average"}),
    ("divisor_override", 3, {"average"}),
    ("norm_p", 3, {"lp"}),
    ("tie_policy", "all", {"max", "min"}),
    ("tie_policy", "split", {"max", "min"}),
    ("nan_policy", "ignore", {"max", "min"}),
    ("nan_policy", "error", {"max", "min"}),
)


@once
@pytest.mark.parametrize(("option", "value", "modes"), OPTIONS)
@pytest.mark.parametrize("mode", MODES)
def test_options_of_other_modes(mode, option, value, modes):
    if mode in modes:
        assert getattr(PoolSpec(mode, 2, **{option: value}), option) == value
        return
    with pytest.raises(InvalidSpecError, match=mode) as error:
        PoolSpec(mode, 2, **{option: value})
    assert error.value.field == option


# (options that contradict one another, the field of the error)
CONTRADICTIONS = (
    ({}, "kernel"),
    ({"kernel": 2, "adaptive_output": 2}, "adaptive_output"),
    ({"kernel": 2, "global_window": True}, "global_window"),
    ({"adaptive_output": 2, "global_window": True}, "global_window"),
    ({"kernel": 2, "ceil_mode": True, "padding": "valid"}, "ceil_mode"),
    ({"kernel": 2, "ceil_mode": True, "padding": "same_upper"}, "ceil_mode"),
    ({"kernel": 2, "ceil_mode": True, "padding": "same_lower"}, "ceil_mode"),
    ({"kernel": (2, 2), "stride": (1, 1, 1)}, "kernel"),
    ({"kernel": 3, "stride": (1, 1), "padding": (1, 1, 1)}, "stride"),
    *(
        (window | {option: value}, option)
        for window in ({"adaptive_output": 2}, {"global_window": True})
        for option, value in (
            ("stride", 2),
            ("dilation", 2),
            ("padding", 1),
            ("padding", "valid"),
            ("ceil_mode", True),
        )
    ),
)


@once
@pytest.mark.parametrize(("options", "field"), CONTRADICTIONS, ids=cases.name_of)
@pytest.mark.parametrize("mode", MODES)
def test_options_that_contradict_one_another(mode, options, field):
    with pytest.raises(InvalidSpecError) as error:
        PoolSpec(mode, **options)
    assert error.value.field == field


X = cases.read_only(np.ones((1, 1, 4), np.float32))
DY = cases.read_only(np.ones((1, 1, 2), np.float32))
SENT = {"input_shape": X.shape, "indices": np.zeros((1, 1, 2), np.uint8), "input": X}
SUBSETS = [set(names) for count in range(4) for names in itertools.combinations(SENT, count)]


def fault_of(needs, sent):
    """Return the field of the error, or None if the arguments are valid for the mode."""
    if not sent & {"input_shape", "input"}:
        return "input_shape"
    if needs == "either":
        return None if ("indices" in sent) != ("input" in sent) else "indices"
    if "indices" in sent:
        return "indices"
    return None if ("input" in sent) == (needs == "input") else "input"


NEEDS = (
    *(({"mode": mode}, "either") for mode in SELECTING),
    *(({"mode": mode, "tie_policy": "all"}, "input") for mode in SELECTING),
    *(({"mode": mode, "tie_policy": "split"}, "input") for mode in SELECTING),
    ({"mode": "average"}, "shape"),
    ({"mode": "sum"}, "shape"),
    ({"mode": "lp"}, "input"),
)


@pytest.mark.parametrize("sent", SUBSETS, ids=lambda sent: " ".join(sorted(sent)) or "nothing")
@pytest.mark.parametrize(("options", "needs"), NEEDS, ids=cases.name_of)
def test_arguments_besides_the_gradient(options, needs, sent):
    field = fault_of(needs, sent)
    residual = {name: SENT[name] for name in sent}
    if field is None:
        assert backward(DY, PoolSpec(**options, kernel=2), **residual).shape == X.shape
        return
    with pytest.raises(InvalidTensorError) as error:
        backward(DY, PoolSpec(**options, kernel=2), **residual)
    assert error.value.field == field
    assert "indices" in sent or "not indices" not in str(error.value)


@pytest.mark.parametrize("shape", ["1,1,4", 4, (1, 1, 4.0), (1, None, 4)])
def test_a_shape_that_is_no_sequence_of_integers_is_rejected(shape):
    with pytest.raises(InvalidTensorError, match=r"^input_shape is .* sequence of integers$"):
        backward(DY, PoolSpec("sum", 2), input_shape=shape)


# (the gradient's shape, the input's shape): the output of (1, 1, 4) is (1, 1, 2)
WRONG_SHAPES = (
    ((1, 1, 3), X.shape),
    ((1, 2), X.shape),
    ((2, 1, 2), X.shape),
    ((1, 1, 2, 1), X.shape),
    ((), X.shape),
    ((0, 1, 2), X.shape),
    ((1, 1, 2), (0, 1, 4)),
    ((1, 1, 2), (1, 1, 6)),
)


@once
@pytest.mark.parametrize(("shape", "input_shape"), WRONG_SHAPES)
@pytest.mark.parametrize("mode", MODES)
def test_gradients_of_another_shape_are_rejected(mode, shape, input_shape):
    residual = {"input_shape": input_shape}
    if mode in (*SELECTING, "lp"):
        residual = {"input": np.ones(input_shape, np.float32)}
    with pytest.raises(InvalidTensorError) as error:
        backward(np.ones(shape, np.float32), PoolSpec(mode, 2), **residual)
    assert error.value.field == "output_gradient"


@once
@pytest.mark.parametrize("mode", MODES)
def test_an_input_of_another_shape_is_rejected(mode):
    residual = {"input": X, "input_shape": (1, 1, 5)}
    with pytest.raises(InvalidTensorError) as error:
        backward(DY, PoolSpec(mode, 2), **residual)
    assert error.value.field == "input_shape"


class Unconvertible:
    """Object like a PyTorch tensor that requires a gradient, on an unknown device."""

    def __array__(self, *_, **__):
        raise RuntimeError("call detach() first")

    def __dlpack_device__(self):
        raise ValueError("unknown device")


@once
def test_objects_that_do_not_become_arrays_are_rejected():
    with pytest.raises(InvalidTensorError, match="input is not an array: call detach") as error:
        forward(Unconvertible(), PoolSpec("max", 2))
    assert error.value.field == "input"
    with pytest.raises(InvalidTensorError, match="detach") as error:
        backward(Unconvertible(), PoolSpec("sum", 2), input_shape=X.shape)
    assert error.value.field == "output_gradient"


@once
@pytest.mark.parametrize("dtype", cases.NO_ELEMENT_TYPES)
@pytest.mark.parametrize("mode", MODES)
def test_unsupported_element_types_are_rejected(mode, dtype):
    with pytest.raises(InvalidTensorError) as error:
        forward(X.astype(dtype), PoolSpec(mode, 2))
    assert error.value.field == "input"
    residual = {"input": X} if mode in (*SELECTING, "lp") else {"input_shape": X.shape}
    with pytest.raises(InvalidTensorError) as error:
        backward(DY.astype(dtype), PoolSpec(mode, 2), **residual)
    assert error.value.field == "output_gradient"
