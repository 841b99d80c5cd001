"""The engine against ONNX Runtime on the CPU, for inputs that ONNX Runtime computes correctly.

These have no NaN, no window without a valid tap, and padding less than the undilated kernel.
Automatic padding is used only without dilation and if it is not negative; otherwise ONNX Runtime
crops or fails. Models are built in memory, with operator set 22.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooling_engine import PoolSpec, backward, forward
from tests.support import cases, oracle

OPERATORS = {"max": "MaxPool", "average": "AveragePool", "lp": "LpPool"}
OPSET = [onnx.helper.make_opsetid("", 22)]
IR_VERSION = onnx.helper.find_min_ir_version_for(OPSET)

SAME = ("same_upper", "same_lower")


class Layer(NamedTuple):
    """Options of a spec, the shape of its input, and a seed for its values."""

    options: dict
    shape: tuple
    seed: int


def run(operator, inputs, outputs, **attributes):
    """Run a model of one operator; `outputs` has the element types of its outputs."""
    of_type = onnx.helper.np_dtype_to_tensor_dtype
    sources = {f"x{number}": array for number, array in enumerate(inputs)}
    results = {f"y{number}": np.dtype(dtype) for number, dtype in enumerate(outputs)}
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator, list(sources), list(results), **attributes)],
        operator,
        [
            onnx.helper.make_tensor_value_info(name, of_type(array.dtype), array.shape)
            for name, array in sources.items()
        ],
        [
            onnx.helper.make_tensor_value_info(name, of_type(dtype), None)
            for name, dtype in results.items()
        ],
    )
    model = onnx.helper.make_model(graph, opset_imports=OPSET, ir_version=IR_VERSION)
    how = onnxruntime.SessionOptions()
    how.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), how, providers=["CPUExecutionProvider"]
    )
    return session.run(None, sources)


def attributes_of(options, sizes):
    """Return the options of a spec as ONNX attributes."""
    windows = cases.windows_of(options, sizes)
    kernels, strides, dilations, before, after = map(list, zip(*windows, strict=True))
    attributes = {"kernel_shape": kernels, "strides": strides, "dilations": dilations}
    if options.get("padding") in SAME:
        attributes["auto_pad"] = options["padding"].upper()
    else:
        attributes |= {"pads": before + after, "ceil_mode": int(options["ceil_mode"])}
    if options["mode"] == "average":
        attributes["count_include_pad"] = int(options["count_include_pad"])
    if options["mode"] == "lp":
        attributes["p"] = options["norm_p"]
    return attributes


def pool(options, x, outputs=1):
    """Pool with ONNX Runtime; return the output and, if requested, its tensor indices."""
    types = [x.dtype, "int64"][:outputs]
    return run(OPERATORS[options["mode"]], [x], types, **attributes_of(options, x.shape[2:]))


def is_trusted(size, window, ceil_mode, is_named):
    """Return whether there is an output and every window along the axis has a valid tap."""
    kernel, stride, dilation, before, _ = window
    if is_named:
        return (math.ceil(size / stride) - 1) * stride + kernel >= size
    outputs = oracle.output_size(size, window, ceil_mode)
    return outputs >= 1 and all(
        any(0 <= output * stride - before + tap * dilation < size for tap in range(kernel))
        for output in range(outputs)
    )


@st.composite
def layers(draw, modes):
    """Draw a spec with 1 to 3 spatial axes that ONNX Runtime computes correctly, and a shape."""
    options = draw(st.sampled_from(modes)) | {"ceil_mode": draw(st.booleans())}
    named = draw(st.sampled_from((None, None, None, *SAME)))
    options |= {"padding": named, "ceil_mode": False} if named else {}
    sizes, windows = [], []
    for _ in range(draw(st.integers(1, 3))):
        kernel, stride = draw(st.integers(1, 4)), draw(st.integers(1, 4))
        dilation = 1 if named else draw(st.integers(1, 3))
        before, after = (0, 0) if named else draw(st.tuples(*[st.integers(0, kernel - 1)] * 2))
        least = max(1, (kernel - 1) * dilation + 1 - before - after)
        window = (kernel, stride, dilation, before, after)
        fits = [
            size
            for size in range(least, least + 7)
            if is_trusted(size, window, options["ceil_mode"], named)
        ]
        sizes.append(draw(st.sampled_from(fits)))
        windows.append(window)
    kernels, strides, dilations, *pads = zip(*windows, strict=True)
    options |= {"kernel": kernels, "stride": strides, "dilation": dilations}
    options.setdefault("padding", tuple(zip(*pads, strict=True)))
    planes = draw(st.tuples(st.integers(1, 2), st.integers(1, 3)))
    return Layer(options, (*planes, *sizes), draw(st.integers(0, 999)))


def whole_numbers(shape, dtype, seed):
    """Return small whole numbers: every sum is exact in every type and order."""
    return np.random.default_rng(seed).integers(-8, 9, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@cases.many_examples
@given(layer=layers([{"mode": "max"}]))
def test_maxima_and_indices_agree(layer, dtype):
    x = cases.hard(layer.shape, dtype, layer.seed, has_nan=False)
    output, indices = pool(layer.options, x, outputs=2)
    ours = forward(x, PoolSpec(**layer.options), return_indices=True, index_format="tensor")
    oracle.assert_same_bits(ours.output, output)
    oracle.assert_same_bits(ours.indices, indices)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@cases.many_examples
@given(layer=layers([{"mode": "max"}]))
def test_maxima_of_whole_numbers_agree(layer, dtype):
    x = whole_numbers(layer.shape, dtype, layer.seed)
    output, indices = pool(layer.options, x, outputs=2)
    ours = forward(x, PoolSpec(**layer.options), return_indices=True, index_format="tensor")
    oracle.assert_same_bits(ours.output, output)
    oracle.assert_same_bits(ours.indices, indices)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@cases.many_examples
@given(
    layer=layers(
        [
            {"mode": "average", "count_include_pad": False},
            {"mode": "average", "count_include_pad": True},
        ]
    )
)
def test_averages_agree(layer, dtype):
    x = whole_numbers(layer.shape, dtype, layer.seed)
    (output,) = pool(layer.options, x)
    ours = forward(x, PoolSpec(**layer.options)).output
    oracle.assert_close(ours, output.astype(np.float64), ulps=1)


@pytest.mark.parametrize(("dtype", "ulps"), [("float16", 1), ("float32", 4)])
@cases.many_examples
@given(layer=layers([{"mode": "lp", "norm_p": p} for p in (1, 2, 3)]))
def test_norms_agree(layer, dtype, ulps):
    x = whole_numbers(layer.shape, dtype, layer.seed)
    (output,) = pool(layer.options, x)
    ours = forward(x, PoolSpec(**layer.options)).output
    oracle.assert_close(ours, output.astype(np.float64), ulps)


@pytest.mark.parametrize("sizes", [(9,), (4, 5), (2, 3, 4)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("mode", ["max", "average"])
def test_global_windows_agree(mode, dtype, sizes):
    x = whole_numbers((2, 3, *sizes), dtype, seed=0)
    (output,) = run(f"Global{OPERATORS[mode]}", [x], [dtype])
    ours = forward(x, PoolSpec(mode, global_window=True)).output
    oracle.assert_close(ours, output.astype(np.float64), ulps=1)


@pytest.mark.parametrize(("kernel", "sizes"), [(3, (9,)), (2, (4, 6)), ((1, 2, 3), (2, 4, 6))])
def test_unpooling_agrees_with_backward(kernel, sizes):
    options = {"mode": "max", "kernel": kernel, "ceil_mode": False}
    x = cases.normal((2, 3, *sizes))
    output, indices = pool(options, x, outputs=2)
    shape = np.array(x.shape, np.int64)
    kernels = list(cases.per_axis(kernel, len(sizes)))
    (unpooled,) = run(
        "MaxUnpool", [output, indices, shape], [x.dtype], kernel_shape=kernels, strides=kernels
    )
    ours = backward(
        output, PoolSpec("max", kernel), input_shape=x.shape, indices=indices, index_format="tensor"
    )
    oracle.assert_same_bits(ours, unpooled)
