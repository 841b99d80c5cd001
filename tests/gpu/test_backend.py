"""Arrays of the CuPy backend: their memory, copies and rejections, on the shim's device."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

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
from pooling_engine.backends.cupy_backend.backend import CupyBackend
from pooling_engine.calls.arrays import arrays_of
from tests.gpu.shim_device import DeviceArray, ShimDevice
from tests.gpu.support import Array, on_device
from tests.support import cases, oracle, pairs, palettes

SHAPE = (2, 4, 9, 7)
SPEC = PoolSpec("max", 3, 2, 1)
LAST = PoolSpec("max", 2, layout="channels_last")


def test_device_arrays_stay_on_the_device(cupy: CupyBackend, device: ShimDevice) -> None:
    x = cases.normal(SHAPE)
    given = on_device(cupy, x)
    device.copied.clear()
    result = forward(given, SPEC, return_indices=True, backend="cupy")
    assert device.copied == []
    dx = backward(result.output, SPEC, input=given, backend="cupy")
    assert device.copied == [4, 4], "only the flag for invalid indices"
    spread = backward(result.output, PoolSpec("sum", 3, 2, 1), input_shape=SHAPE, backend="cupy")
    assert all(type(array) is DeviceArray for array in (*result, dx, spread))
    assert device.copied == [4, 4]
    expected = forward(x, SPEC, return_indices=True, backend="numpy")
    for array, other in zip(result, expected, strict=True):
        oracle.assert_same_bits(cupy.to_host(array), other)
    expected = backward(expected.output, SPEC, input=x, backend="numpy")
    oracle.assert_same_bits(cupy.to_host(dx), expected)


@pytest.mark.parametrize("index_format", ["plane", "tensor"])
def test_positions_of_device_arrays(
    cupy: CupyBackend, device: ShimDevice, index_format: str
) -> None:
    x = cases.normal(SHAPE)
    wanted: dict[str, Any] = {"return_indices": True, "index_format": index_format}
    given = on_device(cupy, x)
    device.copied.clear()
    ours = forward(given, SPEC, backend="cupy", **wanted)
    theirs = forward(x, SPEC, backend="numpy", **wanted)
    assert type(ours.indices) is DeviceArray
    residual = {"input_shape": SHAPE, "index_format": index_format}
    dx = backward(ours.output, SPEC, indices=ours.indices, backend="cupy", **residual)
    assert set(device.copied) == {4}, "only the flags"
    oracle.assert_same_bits(cupy.to_host(ours.indices), theirs.indices)
    expected = backward(theirs.output, SPEC, indices=theirs.indices, backend="numpy", **residual)
    oracle.assert_same_bits(cupy.to_host(dx), expected)


def test_a_device_array_that_is_not_contiguous_is_copied_on_the_device(
    cupy: CupyBackend, device: ShimDevice
) -> None:
    x = cases.normal(SHAPE)
    transposed = DeviceArray(x.transpose(0, 1, 3, 2))
    output = forward(transposed, SPEC, backend="cupy").output
    assert device.copied == []
    expected = forward(x.transpose(0, 1, 3, 2), SPEC, backend="numpy").output
    oracle.assert_same_bits(cupy.to_host(output), expected)


@pytest.mark.parametrize("dtype", palettes.DTYPES, ids=lambda dtype: dtype.name)
def test_unaligned_arrays_are_read_element_by_element(
    cupy: CupyBackend, device: ShimDevice, dtype: np.dtype[Any]
) -> None:
    device.shift = 1
    x = cases.normal((2, 16, 5, 6), dtype)
    for mode in ("max", "average"):
        pairs.assert_same_calls(
            "cupy", {"mode": mode, "kernel": 2, "layout": "channels_last"}, x, cases.normal, 1
        )
    assert all(name.endswith("i32, 1>") for name in device.launched)


def test_cached_launches_depend_on_the_alignment_of_the_arrays(
    cupy: CupyBackend, device: ShimDevice
) -> None:
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
def test_results_are_written_into_device_arrays(cupy: CupyBackend, index_format: str) -> None:
    x = cases.normal(SHAPE)
    given = on_device(cupy, x)
    call = ForwardCall(given, SPEC, True, index_format, arrays=arrays_of(given, cupy))
    results = {name: cupy.device.empty(*made) for name, made in call.result_specs.items()}
    ours = run(call, results, backend="cupy")
    theirs = forward(x, SPEC, return_indices=True, index_format=index_format, backend="numpy")
    for name, expected in theirs._asdict().items():
        assert getattr(ours, name) is results[name]
        oracle.assert_same_bits(cupy.to_host(results[name]), expected)


def test_a_call_on_device_arrays_needs_their_backend(cupy: CupyBackend) -> None:
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
def test_an_out_that_does_not_fit_is_rejected(
    cupy: CupyBackend, out: Callable[[CupyBackend, DeviceArray], Any], says: str
) -> None:
    x = on_device(cupy, cases.normal(SHAPE))
    with pytest.raises(InvalidTensorError, match=says) as caught:
        forward(x, SPEC, out=out(cupy, x), backend="cupy")
    assert caught.value.field == "out"


@pytest.mark.parametrize("error", [BufferError, TypeError, ValueError, NotImplementedError])
@pytest.mark.parametrize("field", ["input", "out"])
def test_an_array_that_is_not_exported_is_rejected_by_name(
    cupy: CupyBackend, monkeypatch: pytest.MonkeyPatch, error: type[Exception], field: str
) -> None:
    """Examples are PyTorch tensors that need a gradient, and tensors on another device."""
    x, out = on_device(cupy, cases.normal(SHAPE)), on_device(cupy, cases.normal((2, 4, 5, 4)))
    named, adopt = {"input": x, "out": out}[field], cupy.device.adopt

    def failing_adopt(array: DeviceArray) -> tuple[DeviceArray, bool]:
        if array is named:
            raise error("it needs a gradient")
        return adopt(array)

    monkeypatch.setattr(cupy.device, "adopt", failing_adopt)
    with pytest.raises(InvalidTensorError, match=f"{field} cannot be used: it needs") as caught:
        forward(x, SPEC, out=out, backend="cupy")
    assert caught.value.field == field


def test_cpu_backends_reject_device_arrays(cupy: CupyBackend) -> None:
    x = on_device(cupy, cases.normal(SHAPE))
    for backend in ("numba", "numpy"):
        with pytest.raises(InvalidSpecError, match="on a CUDA device") as caught:
            forward(x, SPEC, backend=backend)
        assert caught.value.field == "backend"


def test_host_and_device_arrays_in_one_call(cupy: CupyBackend) -> None:
    """All arrays are copied to the memory of the gradient; only host arrays can be."""
    x = cases.normal(SHAPE)
    output = forward(x, SPEC, backend="numpy").output
    dx = backward(on_device(cupy, output), SPEC, input=x, backend="cupy")
    assert type(dx) is DeviceArray
    with pytest.raises(InvalidTensorError, match="is not an array"):
        backward(output, SPEC, input=on_device(cupy, x), backend="cupy")


def test_numpy_computes_a_plan_without_a_kernel(
    cupy: CupyBackend, caplog: pytest.LogCaptureFixture
) -> None:
    spec, x = PoolSpec("max", 2), cases.normal((2, 2, 3, 3, 3, 3))
    with caplog.at_level(logging.INFO, "pooling_engine"):
        dy = forward(x, spec, backend="numpy").output
        ours = backward(on_device(cupy, dy), spec, input=x, backend="cupy")
        theirs = backward(dy, spec, input=x, backend="numpy")
    oracle.assert_same_bits(cupy.to_host(ours), theirs)
    assert "has no compiled CUDA kernel; NumPy computes it" in caplog.text


@pytest.mark.parametrize("place", [np.asarray, None], ids=["host", "device"])
@pytest.mark.parametrize("index", [9, 200, 0], ids=["beyond", "far beyond", "in the padding"])
def test_invalid_indices_are_rejected_by_name(
    cupy: CupyBackend, index: int, place: Callable[[Array], Any] | None
) -> None:
    x = cases.normal(SHAPE)
    output, indices = forward(x, SPEC, return_indices=True, backend="numpy")
    indices[0, 0, 0, 0] = index
    expected = pairs.outcome(
        backward, output, SPEC, input_shape=SHAPE, indices=indices, backend="numpy"
    )
    place = place or cupy.to_device
    with pytest.raises(InvalidTensorError) as caught:
        backward(place(output), SPEC, input_shape=SHAPE, indices=place(indices), backend="cupy")
    assert (caught.value.field, str(caught.value)) == (expected.field, str(expected))


def test_a_nan_is_rejected_if_the_policy_is_error(cupy: CupyBackend) -> None:
    spec = PoolSpec("max", 2, nan_policy="error")
    x = cases.normal(SHAPE)
    forward(on_device(cupy, x), spec, backend="cupy")
    x[..., -1] = np.nan  # in no window
    forward(on_device(cupy, x), spec, backend="cupy")
    x[1, 1, 1, 1] = np.nan
    with pytest.raises(InvalidTensorError, match='nan_policy "error" rejects it'):
        forward(on_device(cupy, x), spec, backend="cupy")


@pytest.mark.parametrize("policy", ["all", "split"])
@pytest.mark.parametrize("place", [np.asarray, None], ids=["host", "device"])
def test_shared_ties_are_computed_on_the_device(
    cupy: CupyBackend, device: ShimDevice, policy: str, place: Callable[[Array], Any] | None
) -> None:
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


def test_invalid_indices_are_rejected_where_nans_would_be(cupy: CupyBackend) -> None:
    spec = PoolSpec("max", 3, 2, 1, nan_policy="error")
    output, indices = forward(cases.normal(SHAPE), spec, return_indices=True, backend="cupy")
    indices[0, 0, 0, 0] = 200
    with pytest.raises(InvalidTensorError) as caught:
        backward(output, spec, input_shape=SHAPE, indices=indices, backend="cupy")
    assert caught.value.field == "indices"


@pytest.mark.parametrize("policy", ["all", "split"])
def test_a_nan_among_ties_is_rejected_if_the_policy_is_error(
    cupy: CupyBackend, policy: str
) -> None:
    spec = PoolSpec("min", 2, tie_policy=policy, nan_policy="error")
    x, dy = cases.normal(SHAPE), cases.normal((2, 4, 4, 3))
    x[..., -1] = np.nan  # in no window
    backward(dy, spec, input=x, backend="cupy")
    x[1, 3, 7, 5] = np.nan
    with pytest.raises(InvalidTensorError, match='nan_policy "error" rejects it') as caught:
        backward(dy, spec, input=x, backend="cupy")
    assert caught.value.field == "input"


@pytest.mark.parametrize("mode", ["sum", "average"])
def test_an_integer_sum_that_overflows_is_rejected(
    cupy: CupyBackend, device: ShimDevice, mode: str
) -> None:
    spec, x = PoolSpec(mode, 2), cases.integers(SHAPE, "int64")
    forward(on_device(cupy, x), spec, backend="cupy")
    x[..., -1] = 2**63 - 1  # in no window
    forward(on_device(cupy, x), spec, backend="cupy")
    x[1, 1, :2, :2] = 2**62
    with pytest.raises(InvalidTensorError, match="sum overflows") as caught:
        forward(on_device(cupy, x), spec, backend="cupy")
    assert caught.value.field == "input"
    device.copied.clear()
    forward(on_device(cupy, x.astype(np.int32)), spec, backend="cupy")
    assert device.copied == [4 * x.size], "no flag, because the sum cannot overflow"


@pytest.mark.parametrize("index_format", ["window", "plane", "tensor"])
@pytest.mark.parametrize("dtype", palettes.INTEGERS, ids=lambda dtype: dtype.name)
def test_indices_of_integers_on_the_device(
    cupy: CupyBackend, device: ShimDevice, dtype: np.dtype[Any], index_format: str
) -> None:
    options = {"dilation": 2, "padding": 2, "stride": 3}  # some windows are empty
    x, spec = cases.extremes((2, 4, 9, 1), dtype), PoolSpec("min", (3, 2), **options)
    given = on_device(cupy, x)
    device.copied.clear()
    wanted: dict[str, Any] = {"return_indices": True, "index_format": index_format}
    ours = forward(given, spec, backend="cupy", **wanted)
    assert device.copied == []
    for array, other in zip(ours, forward(x, spec, backend="numpy", **wanted), strict=True):
        oracle.assert_same_bits(cupy.to_host(array), other)


def test_warm_up_launches_the_common_kernels(cupy: CupyBackend, device: ShimDevice) -> None:
    pooling_engine.warm_up("cupy", background=True)
    assert {name.partition("<")[0] for name in device.launched} == {
        "select_rows",
        "sum_rows",
        "select_row_gradients",
        "sum_row_gradients",
    }
