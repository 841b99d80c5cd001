"""Plans: number of outputs, named padding, divisors, limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pooling_engine
from pooling_engine import (
    InvalidSpecError,
    InvalidTensorError,
    PoolSpec,
    TensorTooLargeError,
    UnsupportedError,
    backward,
    forward,
)
from pooling_engine.plans.divisors import divisors
from pooling_engine.plans.planning import make_plan
from tests.support import cases, oracle

once = pytest.mark.once


def outputs_of(size, **options):
    """Return the number of outputs along the one axis of a tensor."""
    return make_plan(PoolSpec("max", **options), (1, 1, size), "float32").output_shape[2]


# (L, kernel, options, outputs): the contract's section 2 and the golden sizes 12 to 16.
SIZES = (
    (14, 3, {"stride": 2}, 6),
    (14, 3, {"stride": 2, "ceil_mode": True}, 7),
    (4, 1, {"stride": 2, "ceil_mode": True}, 2),
    (2, 3, {"stride": 3, "padding": 1, "ceil_mode": True}, 1),
    (9, 4, {"stride": 4, "padding": 2, "ceil_mode": True}, 3),
    (6, 3, {"stride": 1, "dilation": 2, "padding": "same_upper"}, 6),
    (2, 3, {"stride": 2, "ceil_mode": True}, 1),
    (7, 1, {"stride": 3, "padding": "same_upper"}, 3),
    (5, 2, {"stride": 2, "padding": "same_lower"}, 3),
    (6, 3, {"stride": 2, "padding": "valid"}, 2),
    (4, 3, {"stride": 2, "padding": [(0, 2)], "ceil_mode": True}, 2),
    (5, 3, {}, 1),
    (1, 5, {"padding": [(4, 0)]}, 1),
    (33_554_435, 2, {"stride": 2}, 16_777_217),
    (2**40 + 1, 2, {"stride": 2}, 2**39),
    (2**40 + 1, 2, {"stride": 2, "ceil_mode": True}, 2**39 + 1),
)


@once
@pytest.mark.parametrize(("size", "kernel", "options", "outputs"), SIZES)
def test_sizes(size, kernel, options, outputs):
    assert outputs_of(size, kernel=kernel, **options) == outputs


# (L, options): the contract's "o < 1", golden size 16 first.
NO_OUTPUT = (
    (1, {"kernel": 3, "stride": 2, "ceil_mode": True}),
    (2, {"kernel": 3}),
    (4, {"kernel": 3, "dilation": 2}),
    (2, {"kernel": 9, "padding": [(3, 3)]}),
    (6, {"kernel": 7, "padding": "valid"}),
)


@once
@pytest.mark.parametrize(("size", "options"), NO_OUTPUT, ids=cases.name_of)
def test_an_axis_without_outputs_is_rejected(size, options):
    with pytest.raises(InvalidSpecError, match="spatial axis 0 has no output") as error:
        outputs_of(size, **options)
    assert error.value.field == "kernel[0]"
    assert str(options["kernel"]) in str(error.value)


WINDOW = st.tuples(*(st.integers(1, most) for most in (40, 6, 8, 5)), st.booleans())


@once
@cases.many_examples
@given(window=WINDOW, data=st.data())
def test_sizes_agree_with_the_oracle(window, data):
    size, kernel, stride, dilation, ceil_mode = window
    extent = (kernel - 1) * dilation + 1
    pads = data.draw(st.tuples(*[st.integers(0, extent - 1)] * 2))
    expected = oracle.output_size(size, (kernel, stride, dilation, *pads), ceil_mode)
    options = {"stride": stride, "dilation": dilation, "padding": [pads], "ceil_mode": ceil_mode}
    if expected < 1:
        with pytest.raises(InvalidSpecError):
            outputs_of(size, kernel=kernel, **options)
    else:
        assert outputs_of(size, kernel=kernel, **options) == expected


@once
@cases.many_examples
@given(window=WINDOW, name=st.sampled_from(("same_upper", "same_lower")))
def test_same_padding_agrees_with_the_oracle(window, name):
    size, kernel, stride, dilation, _ = window
    spec = PoolSpec("average", kernel, stride, name, dilation)
    plan = make_plan(spec, (1, 1, size), "float32")
    resolved = plan.axes[0].window
    expected = oracle.named_padding(name, size, kernel, stride, dilation)
    assert (resolved.padding_before, resolved.padding_after) == expected
    assert plan.output_shape == (1, 1, -(-size // stride))


@once
@cases.many_examples
@given(case=cases.cases(), count_include_pad=st.booleans())
def test_divisors_agree_with_the_oracle(case, count_include_pad):
    options = case.options | {"mode": "average", "count_include_pad": count_include_pad}
    for name in ("norm_p", "divisor_override", "layout"):
        options.pop(name, None)
    plan = make_plan(PoolSpec(**options), case.shape, "float32")
    sizes = case.shape[2:]
    windows = cases.windows_of(options, sizes)
    for place in np.ndindex(plan.output_shape[2:]):
        if not any(oracle.is_valid(at, sizes) for at in oracle.taps_of(place, windows)):
            continue
        ours = np.prod([counts[at] for counts, at in zip(divisors(plan), place, strict=True)])
        assert ours == oracle.divisor(place, sizes, windows, count_include_pad)


@once
@pytest.mark.parametrize("shape", cases.INVALID_SHAPES)
def test_invalid_shapes_are_rejected(shape):
    with pytest.raises(InvalidTensorError) as error:
        make_plan(PoolSpec("max", 1), shape, "float32", shape_field="input_shape")
    assert error.value.field == "input_shape"
    assert str(shape) in str(error.value)


@once
@pytest.mark.parametrize("shape", [5, None, (1, 1, 4.0), (1, 1, "4"), "114"])
def test_shapes_of_other_types_are_rejected(shape):
    with pytest.raises(InvalidTensorError) as error:
        make_plan(PoolSpec("max", 1), shape, "float32", shape_field="input_shape")
    assert error.value.field == "input_shape"


@once
@pytest.mark.parametrize("spec", ["max", None, {"mode": "max", "kernel": 2}, PoolSpec])
def test_objects_other_than_specs_are_rejected(spec):
    with pytest.raises(InvalidSpecError, match="it must be a PoolSpec") as error:
        make_plan(spec, (1, 1, 4), "float32")
    assert error.value.field == "spec"


@once
@pytest.mark.parametrize("dtype", cases.NO_ELEMENT_TYPES)
def test_unsupported_element_types_are_rejected(dtype):
    with pytest.raises(InvalidTensorError) as error:
        make_plan(PoolSpec("max", 2), (1, 1, 4), dtype)
    assert error.value.field == "input"
    assert np.dtype(dtype).name in str(error.value)


@once
@pytest.mark.parametrize("dtype", ["real", "f5", "f4,)", 3, None, np.zeros(2)])
def test_objects_other_than_types_are_rejected(dtype):
    with pytest.raises(InvalidTensorError) as error:
        pooling_engine.plan(PoolSpec("max", 2), (1, 1, 4), dtype)
    assert error.value.field == "input"
    assert repr(dtype) in str(error.value)
    assert "bfloat16, float32" in str(error.value)


@once
@pytest.mark.parametrize("dtype", cases.FLOATS + cases.INTEGERS)
def test_another_byte_order_has_the_same_plan(dtype):
    """`forward` accepts it, so a plan for the shape and type of an array is the array's plan."""
    spec, other = PoolSpec("max", 2), np.dtype(dtype).newbyteorder()
    assert pooling_engine.plan(spec, (1, 1, 4), other) is pooling_engine.plan(
        spec, (1, 1, 4), dtype
    )


@once
@pytest.mark.parametrize("option", ["kernel", "stride", "dilation", "padding"])
def test_sizes_for_another_number_of_axes_are_rejected(option):
    options = {"kernel": 2} | {option: (1, 1)}
    with pytest.raises(InvalidSpecError, match="2 spatial axes, but the tensor has 1") as error:
        make_plan(PoolSpec("max", **options), (1, 1, 4), "float32")
    assert error.value.field == option


@once
def test_channels_last_pools_the_middle_axes():
    spec = PoolSpec("max", (2, 3), layout="channels_last")
    assert make_plan(spec, (5, 4, 6, 7), "float32").output_shape == (5, 2, 2, 7)


@pytest.mark.parametrize("mode", ["average", "sum"])
def test_a_sum_of_a_whole_plane_may_have_any_number_of_taps(mode):
    x = np.ones((1, 2, 100_000), np.float32)
    spec = PoolSpec(mode, 100_000)
    total = 1 if mode == "average" else 100_000
    output = pooling_engine.forward(x, spec).output
    assert output.tolist() == [[[total], [total]]]
    dx = pooling_engine.backward(output, spec, input_shape=x.shape)
    np.testing.assert_array_equal(dx, np.full_like(x, 1e-5 if mode == "average" else 100_000))


MANY = {"kernel": (2**21, 2**21, 2**21 + 1), "stride": 1, "padding": "same_upper"}
SELECTING = ({"mode": "max"}, {"mode": "min"}, {"mode": "lp", "norm_p": np.inf})


@once
@pytest.mark.parametrize("mode", SELECTING, ids=cases.name_of)
def test_windows_with_more_taps_than_can_be_numbered_are_unsupported(mode):
    with pytest.raises(UnsupportedError, match="9223376434901286912 taps") as error:
        pooling_engine.plan(PoolSpec(**mode, **MANY), (1, 1, 2, 2, 2), "float32")
    assert error.value.field == "kernel"


@pytest.mark.parametrize("mode", SELECTING, ids=cases.name_of)
def test_the_largest_number_of_taps(mode):
    """The last taps are on elements, and must still be distinguished."""
    kernel = (2**21, 2**21, 2**21 - 1)
    spec = PoolSpec(**mode, kernel=kernel, stride=1, padding=[(k - 2, 0) for k in kernel])
    x = np.array([-0.0, 0.0, np.nan, 1, np.nan, 0, 0, 0], np.float32).reshape(1, 1, 2, 2, 2)
    assert np.isnan(forward(x, spec).output).tolist() == [[[[[True]]]]]
    dx = backward(np.full((1, 1, 1, 1, 1), 3, np.float32), spec, input=x)
    expected = np.nan if spec.mode == "lp" else 3
    np.testing.assert_array_equal(dx.ravel(), [0, 0, expected, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("mode", [{"mode": "sum"}, {"mode": "lp"}], ids=cases.name_of)
def test_modes_without_selection_may_have_more_taps(mode):
    output = forward(np.full((1, 1, 2, 2, 2), 2, np.float32), PoolSpec(**mode, **MANY)).output
    assert output.max() == {"sum": 16, "lp": np.float32(32**0.5)}[mode["mode"]]


@pytest.mark.parametrize("dtype", ["float16", "int16", "int64"])
@pytest.mark.parametrize(
    ("options", "sizes"),
    cases.all_cases(windows=cases.WINDOWS + cases.SIZED_WINDOWS),
    ids=cases.name_of,
)
def test_a_plan_agrees_with_forward(options, sizes, dtype):
    """A plan has the shape and type of the output and of the indices."""
    spec, x = PoolSpec(**options), np.ones((2, 3, *sizes), dtype)
    if options["mode"] == "lp" and dtype in cases.INTEGERS:
        with pytest.raises(InvalidTensorError, match=dtype):
            pooling_engine.plan(spec, x.shape, dtype)
        return
    selects = options["mode"] in ("max", "min")
    plan, result = (
        pooling_engine.plan(spec, x.shape, dtype),
        forward(x, spec, return_indices=selects),
    )
    assert (plan.output_shape, plan.output_dtype) == (result.output.shape, result.output.dtype)
    if selects:
        assert plan.index_dtype == result.indices.dtype


@once
@pytest.mark.parametrize(("options", "sizes"), cases.all_cases(), ids=cases.name_of)
def test_a_plan_has_the_windows_in_effect(options, sizes):
    """A plan has resolved defaults and named padding, as the oracle has."""
    plan = pooling_engine.plan(PoolSpec(**options), (2, 3, *sizes), "float32")
    windows = cases.windows_of(options, sizes)
    assert [tuple(axis)[2:] for axis in plan.planned_axes] == list(windows)
    assert [axis.size for axis in plan.planned_axes] == list(sizes)
    assert tuple(axis.outputs for axis in plan.planned_axes) == plan.output_shape[2:]
    assert plan.taps == np.prod([window[0] for window in windows])


RULES = (
    ({}, "padded_taps"),
    ({"count_include_pad": False}, "valid_taps"),
    ({"divisor_override": 2}, "override"),
    ({"divisor_override": 2, "count_include_pad": False}, "override"),
)


@once
@pytest.mark.parametrize(("options", "rule"), RULES, ids=cases.name_of)
def test_a_plan_has_the_divisor_rule(options, rule):
    assert (
        pooling_engine.plan(PoolSpec("average", 2, **options), (1, 1, 4), "float32").divisor_rule
        == rule
    )
    for mode in ("max", "min", "sum", "lp"):
        assert pooling_engine.plan(PoolSpec(mode, 2), (1, 1, 4), "float32").divisor_rule is None


@once
@cases.many_examples
@given(window=cases.ranked_windows(1), data=st.data())
def test_the_starts_and_limits_of_a_range_of_outputs(window, data):
    options, sizes, _ = window
    channels_last = options.get("layout") == "channels_last"
    shape = (1, *sizes, 1) if channels_last else (1, 1, *sizes)
    (axis,) = pooling_engine.plan(PoolSpec("max", **options), shape, "float32").axes
    begin, end = sorted(data.draw(st.tuples(*[st.integers(0, axis.outputs)] * 2)))
    np.testing.assert_array_equal(axis.starts((begin, end)), axis.starts()[begin:end])
    for part, limits in zip(axis.tap_limits((begin, end)), axis.tap_limits(), strict=True):
        np.testing.assert_array_equal(part, limits[begin:end])


@once
def test_plans_are_cached():
    one = make_plan(PoolSpec("max", 3, padding=1), (2, 3, 8, 8), "float32")
    assert one is make_plan(PoolSpec("max", 3, padding=1), [2, 3, 8, 8], np.float32)


@once
def test_the_longest_adaptive_window_is_known_without_a_search():
    for size in range(1, 40):
        for count in range(1, 60):
            (axis,) = make_plan(PoolSpec("max", adaptive_output=count), (1, 1, size), "uint8").axes
            stops = [-(-(i + 1) * size // count) for i in range(count)]
            starts = [i * size // count for i in range(count)]
            longest = max(stop - start for start, stop in zip(starts, stops, strict=True))
            assert axis.kernel == longest
            assert axis.slices >= len(axis.taps((0, count), (0, size)))


@once
@pytest.mark.parametrize("index_format", ["window", "tensor"])
def test_an_empty_batch_with_too_large_planes_is_rejected(index_format):
    """NumPy cannot make such arrays, although they have no elements."""
    x = np.ones((0, 1, 3, 4, 5, 7), np.uint8)
    spec = PoolSpec("max", adaptive_output=(65519, 65519, 65519, 32003))
    with pytest.raises(TensorTooLargeError, match="input"):
        forward(x, spec, return_indices=True, index_format=index_format)
