"""What the CuPy backend does with arrays: where they stay, what is copied, what is refused."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import pooling_engine
from pooling_engine import (
    ForwardCall,
    InvalidSpecError,
    InvalidTensorError,
    PoolSpec,
    backward,
    forward,
    run,
)
from pooling_engine.calls.arrays import arrays_of
from tests.gpu.shim_device import DeviceArray
from tests.support import cases, oracle, pairs, palettes

SHAPE = (2, 4, 9, 7)
SPEC = PoolSpec("max", 3, 2, 1)
LAST = PoolSpec("max", 2, layout="channels_last")


def on_device(backend, array):
    return backend.to_device(np.ascontiguousarray(array))


def test_arrays_of_the_card_stay_there(cupy, device):
    x = cases.normal(SHAPE)
    given = on_device(cupy, x)
    device.copied.clear()
    result = forward(given, SPEC, return_indices=True, backend="cupy")
    assert device.copied == []
    dx = backward(result.output, SPEC, input=given, backend="cupy")
    assert device.copied == [4, 4], "only the mark of doubt about indices"
    spread = backward(result.output, PoolSpec("sum", 3, 2, 1), input_shape=SHAPE, backend="cupy")
    assert all(type(array) is DeviceArray for array in (*result, dx, spread))
    assert device.copied == [4, 4]
    expected = forward(x, SPEC, return_indices=True, backend="numpy")
    for array, other in zip(result, expected, strict=True):
        oracle.assert_same_bits(cupy.to_host(array), other)
    expected = backward(expected.output, SPEC, input=x, backend="numpy")
    oracle.assert_same_bits(cupy.to_host(dx), expected)


@pytest.mark.parametrize("index_format", ["plane", "tensor"])
def test_positions_of_arrays_of_the_card(cupy, device, index_format):
    x = cases.normal(SHAPE)
    asked = {"return_indices": True, "index_format": index_format}
    given = on_device(cupy, x)
    device.copied.clear()
    ours = forward(given, SPEC, backend="cupy", **asked)
    theirs = forward(x, SPEC, backend="numpy", **asked)
    assert type(ours.indices) is DeviceArray
    residual = {"input_shape": SHAPE, "index_format": index_format}
    dx = backward(ours.output, SPEC, indices=ours.indices, backend="cupy", **residual)
    assert set(device.copied) == {4}, "only marks of doubt"
    oracle.assert_same_bits(cupy.to_host(ours.indices), theirs.indices)
    expected = backward(theirs.output, SPEC, indices=theirs.indices, backend="numpy", **residual)
    oracle.assert_same_bits(cupy.to_host(dx), expected)


def test_what_is_not_contiguous_on_the_card_is_copied_there(cupy, device):
    x = cases.normal(SHAPE)
    transposed = DeviceArray(x.transpose(0, 1, 3, 2))
    output = forward(transposed, SPEC, backend="cupy").output
    assert device.copied == []
    expected = forward(x.transpose(0, 1, 3, 2), SPEC, backend="numpy").output
    oracle.assert_same_bits(cupy.to_host(output), expected)


@pytest.mark.parametrize("dtype", palettes.DTYPES, ids=lambda dtype: dtype.name)
def test_arrays_that_are_not_aligned(cupy, device, dtype):
    device.shift = 1
    x = cases.normal((2, 16, 5, 6), dtype)
    for mode in ("max", "average"):
        pairs.assert_same_calls(
            "cupy", {"mode": mode, "kernel": 2, "layout": "channels_last"}, x, cases.normal, 1
        )
    assert all(name.endswith("i32, 1>") for name in device.launched)


def test_what_is_remembered_of_a_call_depends_on_where_its_arrays_begin(cupy, device):
    x = cases.normal((2, 16, 5, 16))
    expected = forward(x, LAST, backend="numpy").output
    for device.shift in (0, 1, 0):
        device.launched.clear()
        oracle.assert_same_bits(
            cupy.to_host(forward(on_device(cupy, x), LAST, backend="cupy").output), expected
        )
        (name,) = device.launched
        assert name.endswith(", 1>") == (device.shift == 1), name


@pytest.mark.parametrize("index_format", ["window", "plane", "tensor"])
def test_results_in_arrays_of_the_device(cupy, index_format):
    x = cases.normal(SHAPE)
    given = on_device(cupy, x)
    call = ForwardCall(given, SPEC, True, index_format, arrays=arrays_of(given, cupy))
    results = {name: cupy.device.empty(*made) for name, made in call.result_specs.items()}
    ours = run(call, results, backend="cupy")
    theirs = forward(x, SPEC, return_indices=True, index_format=index_format, backend="numpy")
    for name, expected in theirs._asdict().items():
        assert getattr(ours, name) is results[name]
        oracle.assert_same_bits(cupy.to_host(results[name]), expected)


def test_a_call_on_the_device_runs_on_its_backend_alone(cupy):
    x = on_device(cupy, cases.normal(SHAPE))
    call = ForwardCall(x, SPEC, arrays=arrays_of(x, cupy))
    with pytest.raises(InvalidSpecError, match="on a CUDA device") as caught:
        run(call, backend="numpy")
    assert caught.value.field == "backend"


@pytest.mark.parametrize(
    ("out", "says"),
    [
        (lambda cupy, x: np.empty((2, 4, 5, 4), np.float32), "must be on the same device"),
        (lambda cupy, x: cupy.device.empty((2, 4, 5, 4), np.float64), "must be a C-contiguous"),
        (lambda cupy, x: cupy.device.empty((2, 4, 4, 5), np.float32), "must be a C-contiguous"),
        (lambda cupy, x: DeviceArray(np.empty((2, 4, 4, 5), "f4").swapaxes(2, 3)), "C-contiguous"),
        (lambda cupy, x: DeviceArray(x.memory.reshape(-1)[:160].reshape(2, 4, 5, 4)), "shares"),
    ],
)
def test_out_that_cannot_be_written_into(cupy, out, says):
    x = on_device(cupy, cases.normal(SHAPE))
    with pytest.raises(InvalidTensorError, match=says) as refusal:
        forward(x, SPEC, out=out(cupy, x), backend="cupy")
    assert refusal.value.field == "out"


@pytest.mark.parametrize("error", [BufferError, TypeError, ValueError, NotImplementedError])
@pytest.mark.parametrize("field", ["input", "out"])
def test_an_array_that_is_not_handed_out_is_refused_by_name(cupy, monkeypatch, error, field):
    """As PyTorch's that need a gradient, and those on another card."""
    x, out = on_device(cupy, cases.normal(SHAPE)), on_device(cupy, cases.normal((2, 4, 5, 4)))
    named, adopt = {"input": x, "out": out}[field], cupy.device.adopt

    def picky(array):
        if array is named:
            raise error("it needs a gradient")
        return adopt(array)

    monkeypatch.setattr(cupy.device, "adopt", picky)
    with pytest.raises(InvalidTensorError, match=f"{field} cannot be used: it needs") as refusal:
        forward(x, SPEC, out=out, backend="cupy")
    assert refusal.value.field == field


def test_the_processor_does_not_take_arrays_of_the_card(cupy):
    x = on_device(cupy, cases.normal(SHAPE))
    for backend in ("numba", "numpy"):
        with pytest.raises(InvalidSpecError, match="on a CUDA device") as refusal:
            forward(x, SPEC, backend=backend)
        assert refusal.value.field == "backend"


def test_memory_of_both_kinds_in_one_call(cupy):
    """What comes beside the gradient is taken to where that is."""
    x = cases.normal(SHAPE)
    output = forward(x, SPEC, backend="numpy").output
    dx = backward(on_device(cupy, output), SPEC, input=x, backend="cupy")
    assert type(dx) is DeviceArray
    with pytest.raises(InvalidTensorError, match="is not an array"):
        backward(output, SPEC, input=on_device(cupy, x), backend="cupy")


def test_what_has_no_kernel_is_computed_by_numpy(cupy, caplog):
    spec, x = PoolSpec("max", 2), cases.normal((2, 2, 3, 3, 3, 3))
    with caplog.at_level(logging.INFO, "pooling_engine"):
        dy = forward(x, spec, backend="numpy").output
        ours = backward(on_device(cupy, dy), spec, input=x, backend="cupy")
        theirs = backward(dy, spec, input=x, backend="numpy")
    oracle.assert_same_bits(cupy.to_host(ours), theirs)
    assert "has no compiled CUDA kernel; NumPy computes it" in caplog.text


@pytest.mark.parametrize("where", [np.asarray, None])
@pytest.mark.parametrize("index", [9, 200, 0], ids=["beyond", "far beyond", "in the padding"])
def test_forged_indices_are_refused_by_name(cupy, index, where):
    x = cases.normal(SHAPE)
    output, indices = forward(x, SPEC, return_indices=True, backend="numpy")
    indices[0, 0, 0, 0] = index
    expected = pairs.outcome(
        backward, output, SPEC, input_shape=SHAPE, indices=indices, backend="numpy"
    )
    taken = where or cupy.to_device
    with pytest.raises(InvalidTensorError) as refusal:
        backward(taken(output), SPEC, input_shape=SHAPE, indices=taken(indices), backend="cupy")
    assert (refusal.value.field, str(refusal.value)) == (expected.field, str(expected))


def test_a_nan_is_refused_where_the_policy_says_so(cupy):
    spec = PoolSpec("max", 2, nan_policy="error")
    x = cases.normal(SHAPE)
    forward(on_device(cupy, x), spec, backend="cupy")
    x[..., -1] = np.nan  # in no window
    forward(on_device(cupy, x), spec, backend="cupy")
    x[1, 1, 1, 1] = np.nan
    with pytest.raises(InvalidTensorError, match='nan_policy "error" rejects it'):
        forward(on_device(cupy, x), spec, backend="cupy")


@pytest.mark.parametrize("policy", ["all", "split"])
@pytest.mark.parametrize("place", [np.asarray, None], ids=["host", "card"])
def test_shared_ties_are_computed_on_the_card(cupy, device, policy, place):
    place = place or cupy.to_device
    spec, x = PoolSpec("max", 2, tie_policy=policy), np.ones(SHAPE, np.float32)
    dy = cases.normal(pooling_engine.plan(spec, SHAPE, x.dtype).output_shape)
    given = place(dy), place(x)
    device.copied.clear()
    dx = backward(given[0], spec, input=given[1], backend="cupy")
    names = [name.partition("<")[0] for name in device.launched]
    share = ["share_rows"] if policy == "split" else []
    assert names == ["select_rows", *share, "tie_gradients"]
    assert device.copied == ([dy.nbytes, x.nbytes, x.nbytes] if place is np.asarray else [])
    dx = dx if place is np.asarray else cupy.to_host(dx)
    oracle.assert_same_bits(dx, backward(dy, spec, input=x, backend="numpy"))


def test_forged_indices_are_refused_where_nans_would_be(cupy):
    spec = PoolSpec("max", 3, 2, 1, nan_policy="error")
    output, indices = forward(cases.normal(SHAPE), spec, return_indices=True, backend="cupy")
    indices[0, 0, 0, 0] = 200
    with pytest.raises(InvalidTensorError) as refusal:
        backward(output, spec, input_shape=SHAPE, indices=indices, backend="cupy")
    assert refusal.value.field == "indices"


@pytest.mark.parametrize("policy", ["all", "split"])
def test_a_nan_among_ties_is_refused_where_the_policy_says_so(cupy, policy):
    spec = PoolSpec("min", 2, tie_policy=policy, nan_policy="error")
    x, dy = cases.normal(SHAPE), cases.normal((2, 4, 4, 3))
    x[..., -1] = np.nan  # in no window
    backward(dy, spec, input=x, backend="cupy")
    x[1, 3, 7, 5] = np.nan
    with pytest.raises(InvalidTensorError, match='nan_policy "error" rejects it') as refusal:
        backward(dy, spec, input=x, backend="cupy")
    assert refusal.value.field == "input"


@pytest.mark.parametrize("mode", ["sum", "average"])
def test_a_sum_that_overflows_is_refused(cupy, device, mode):
    spec, x = PoolSpec(mode, 2), cases.integers(SHAPE, "int64")
    forward(on_device(cupy, x), spec, backend="cupy")
    x[..., -1] = 2**63 - 1  # in no window
    forward(on_device(cupy, x), spec, backend="cupy")
    x[1, 1, :2, :2] = 2**62
    with pytest.raises(InvalidTensorError, match="sum overflows") as refusal:
        forward(on_device(cupy, x), spec, backend="cupy")
    assert refusal.value.field == "input"
    device.copied.clear()
    forward(on_device(cupy, x.astype(np.int32)), spec, backend="cupy")
    assert device.copied == [4 * x.size], "nothing to ask a card about"


@pytest.mark.parametrize("index_format", ["window", "plane", "tensor"])
@pytest.mark.parametrize("dtype", palettes.INTEGERS, ids=lambda dtype: dtype.name)
def test_indices_of_integers_of_the_card(cupy, device, dtype, index_format):
    options = {"dilation": 2, "padding": 2, "stride": 3}  # some windows have no tap
    x, spec = cases.extremes((2, 4, 9, 1), dtype), PoolSpec("min", (3, 2), **options)
    given = on_device(cupy, x)
    device.copied.clear()
    asked = {"return_indices": True, "index_format": index_format}
    ours = forward(given, spec, backend="cupy", **asked)
    assert device.copied == []
    for array, other in zip(ours, forward(x, spec, backend="numpy", **asked), strict=True):
        oracle.assert_same_bits(cupy.to_host(array), other)


def test_warm_up_launches_the_common_kernels(cupy, device):
    pooling_engine.warm_up("cupy", background=True)
    assert {name.partition("<")[0] for name in device.launched} == {
        "select_rows",
        "sum_rows",
        "select_row_gradients",
        "sum_row_gradients",
    }
