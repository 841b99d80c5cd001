"""Tests that need a GPU: its arithmetic, arrays of other libraries, streams, large tensors.

Needs only NumPy, CuPy, PyTorch and pytest: `scripts/gpu/check.py` runs it on machines without other
packages. compute-sanitizer runs the tests named "short".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pooling_engine import InvalidTensorError, PoolSpec, backward, forward
from pooling_engine.backends.cupy_backend.backend import CupyBackend
from pooling_engine.backends.cupy_backend.planning import geometry
from pooling_engine.dtypes import FLOATS
from tests.gpu.support import Array, on_device
from tests.support import oracle

pytestmark = pytest.mark.usefixtures("backend")

SPEC = PoolSpec("max", 3, 2, 1)
SHAPE = (2, 4, 9, 12)
NORMS = (1, 2, 2.5, 3, np.inf)
# Largest distance of two norms within the bounds of `test_norms.py`; NumPy's is a norm of norms.
ULPS = {"float16": 1, "bfloat16": 1, "float32": 1, "float64": 64}
SLACK = 1e-12  # absolute error of gradients whose terms cancel
MODES = ({"mode": "max"}, {"mode": "min", "nan_policy": "ignore"}, {"mode": "average"})
# Windows for every file of kernels and every division of work among threads.
WINDOWS = (
    ({"kernel": 2}, (2, 3, 20, 24)),
    ({"kernel": 3, "stride": 2, "padding": 1}, (2, 3, 21, 24)),
    ({"kernel": 3, "stride": 1, "padding": 1}, (2, 3, 9, 13)),
    ({"kernel": 5, "stride": 1, "padding": 2}, (1, 2, 30, 32)),
    ({"kernel": (3, 2), "stride": (2, 3), "dilation": 2, "padding": 1}, (2, 3, 11, 9)),
    ({"kernel": 3, "stride": (1, 2, 2), "padding": 1}, (1, 2, 5, 9, 16)),
    ({"kernel": 4}, (3, 5, 1000)),
    ({"kernel": 3, "stride": 2, "padding": 1, "layout": "channels_last"}, (2, 11, 10, 16)),
    ({"kernel": 3, "stride": 2, "layout": "channels_last"}, (2, 11, 10, 5)),
    ({"adaptive_output": (3, 5)}, (2, 3, 17, 11)),
    ({"kernel": (9, 20), "stride": 9, "padding": (4, 10)}, (2, 3, 40, 60)),
    ({"kernel": 70, "stride": 9, "padding": 69}, (3, 5, 200)),
    ({"global_window": True}, (3, 7, 7, 7)),
    ({"global_window": True}, (3, 6, 2056)),
    ({"global_window": True}, (1, 2, 40_000)),
)
of_type = pytest.mark.parametrize("dtype", FLOATS, ids=lambda dtype: dtype.name)
of_window = pytest.mark.parametrize("number", range(len(WINDOWS)))


def values(shape: tuple[int, ...], dtype: Any, is_hard: bool) -> Array:
    """Return normal numbers; if hard, a mix of ties, NaNs, infinities and subnormals."""
    source = np.random.default_rng(len(shape))
    if not is_hard:
        return source.standard_normal(shape).astype(dtype)
    palette = [0.0, -0.0, 1.0, 1.0, np.inf, -np.inf, np.nan, -np.nan, 1e-45, 1e-40, 6e-8]
    return source.choice(np.array(palette).astype(dtype), shape)


def assert_same(backend: CupyBackend, ours: Any, theirs: Any) -> None:
    oracle.assert_same_bits(backend.to_host(ours), theirs)


def assert_same_calls(backend: CupyBackend, options: dict[str, Any], x: Array) -> None:
    """Check that both directions of every mode on device arrays are bit-identical to NumPy."""
    for mode in MODES:
        spec, selects = PoolSpec(**mode, **options), mode["mode"] != "average"
        given = on_device(backend, x)
        theirs = forward(x, spec, return_indices=selects, backend="numpy")
        assert_same(backend, forward(given, spec, backend="cupy").output, theirs.output)
        residual = {"input_shape": x.shape}
        given_residual = dict(residual)
        if selects:
            ours = forward(given, spec, return_indices=True, backend="cupy")
            assert_same(backend, ours.output, theirs.output)
            assert_same(backend, ours.indices, theirs.indices)
            residual["indices"], given_residual["indices"] = theirs.indices, ours.indices
        dy = values(theirs.output.shape, x.dtype, is_hard=False)
        given_dy = on_device(backend, dy)
        expected = backward(dy, spec, backend="numpy", **residual)
        assert_same(backend, backward(given_dy, spec, backend="cupy", **given_residual), expected)
        for policy in ("all", "split") if selects else ():
            ties = replace(spec, tie_policy=policy)
            expected = backward(dy, ties, input=x, backend="numpy")
            assert_same(backend, backward(given_dy, ties, input=given, backend="cupy"), expected)


def assert_close_norms(backend: CupyBackend, options: dict[str, Any], x: Array) -> None:
    """Check both directions of norms on device arrays against NumPy, within their error bounds."""
    for p in NORMS:
        spec, given = PoolSpec("lp", norm_p=p, **options), on_device(backend, x)
        theirs = forward(x, spec, backend="numpy").output
        ours = backend.to_host(forward(given, spec, backend="cupy").output)
        oracle.assert_close(ours, theirs.astype(np.float64), ULPS[x.dtype.name])
        dy = values(theirs.shape, x.dtype, is_hard=False)
        expected = backward(dy, spec, input=x, backend="numpy")
        dx = backend.to_host(backward(on_device(backend, dy), spec, input=given, backend="cupy"))
        oracle.assert_close(dx, expected.astype(np.float64), ULPS[x.dtype.name], SLACK)


@of_type
@of_window
def test_norms(backend: CupyBackend, dtype: np.dtype[Any], number: int) -> None:
    options, shape = WINDOWS[number]
    assert_close_norms(backend, options, values(shape, dtype, is_hard=False))


@of_type
@of_window
@pytest.mark.parametrize("is_hard", [False, True], ids=["normal", "hard"])
def test_every_kind_of_window(
    backend: CupyBackend, dtype: np.dtype[Any], number: int, is_hard: bool
) -> None:
    options, shape = WINDOWS[number]
    with np.errstate(all="ignore"):
        x = values(shape, dtype, is_hard)
    assert_same_calls(backend, options, x)


@pytest.fixture
def no_pool(backend: CupyBackend) -> Iterator[None]:
    """Allocate each array separately, so that compute-sanitizer finds accesses beyond it."""
    import cupy

    before = cupy.cuda.get_allocator()
    cupy.cuda.set_allocator(None)
    yield
    cupy.cuda.set_allocator(before)


SHORT = [("float32", number) for number in range(len(WINDOWS))]
SHORT += [("float16", number) for number in (1, 7, 13)]


@pytest.mark.usefixtures("no_pool")
@pytest.mark.parametrize(("dtype", "number"), SHORT)
def test_short(backend: CupyBackend, dtype: str, number: int) -> None:
    options, shape = WINDOWS[number]
    x = values(shape, dtype, is_hard=False)
    assert_same_calls(backend, options, x)
    assert_close_norms(backend, options, x)


@of_type
def test_host_arrays(dtype: np.dtype[Any]) -> None:
    """Small arrays are one chunk in a staging buffer, large arrays are several."""
    for shape in (SHAPE, (8, 64, 112, 112)):
        x = values(shape, dtype, is_hard=False)
        ours = forward(x, SPEC, return_indices=True, backend="cupy")
        theirs = forward(x, SPEC, return_indices=True, backend="numpy")
        residual = {"input_shape": shape, "indices": theirs.indices}
        dx = backward(theirs.output, SPEC, backend="cupy", **residual)
        expected = backward(theirs.output, SPEC, backend="numpy", **residual)
        pairs = (*zip(ours, theirs, strict=True), (dx, expected))
        for one, other in pairs:
            oracle.assert_same_bits(one, other)


def test_invalid_indices_are_rejected(backend: CupyBackend) -> None:
    x = values(SHAPE, np.float32, is_hard=False)
    output, indices = forward(x, SPEC, return_indices=True, backend="numpy")
    indices[1, 1, 1, 1] = 200
    for place in (np.asarray, backend.to_device):
        dy, residual = place(output), {"input_shape": SHAPE, "indices": place(indices)}
        with pytest.raises(InvalidTensorError) as caught:
            backward(dy, SPEC, backend="cupy", **residual)
        assert caught.value.field == "indices"


def is_rejected(tensor: Any) -> bool:
    """Check that CuPy before version 14 rejects bfloat16 tensors; return whether this is one."""
    import cupy
    import torch

    if tensor.dtype is not torch.bfloat16 or int(cupy.__version__.partition(".")[0]) >= 14:
        return False
    with pytest.raises(InvalidTensorError, match="input cannot be used"):
        forward(tensor, SPEC, backend="cupy")
    return True


@of_type
def test_pytorch_tensors_are_read_without_a_copy(
    backend: CupyBackend, dtype: np.dtype[Any]
) -> None:
    import torch

    x = torch.randn(SHAPE, device="cuda", dtype=getattr(torch, dtype.name))
    if is_rejected(x):
        return
    host = backend.to_host(backend.device.adopt(x)[0])
    for tensor, array in (
        (x, host),
        (x.transpose(2, 3), host.swapaxes(2, 3)),
        (x[:, 1:3], host[:, 1:3]),
        (x[:0], host[:0]),
        (x.contiguous(memory_format=torch.channels_last), host),
    ):
        ours = forward(tensor, SPEC, backend="cupy").output
        assert_same(backend, ours, forward(array, SPEC, backend="numpy").output)
    assert backend.device.adopt(x)[0].data.ptr == x.data_ptr()


@of_type
def test_pytorch_reads_results_without_a_copy(backend: CupyBackend, dtype: np.dtype[Any]) -> None:
    import torch

    x = torch.randn(SHAPE, device="cuda", dtype=getattr(torch, dtype.name))
    if is_rejected(x):
        return
    ours = forward(x, SPEC, backend="cupy").output
    theirs = torch.nn.functional.max_pool2d(x, 3, 2, 1)
    given = torch.from_dlpack(ours)
    assert given.data_ptr() == ours.data.ptr
    assert torch.equal(given, theirs)


def test_pytorch_tensors_that_need_a_gradient_are_rejected_by_name(backend: CupyBackend) -> None:
    import torch

    x = torch.zeros(SHAPE, device="cuda", requires_grad=True)
    with pytest.raises(InvalidTensorError, match="input cannot be used") as caught:
        forward(x, SPEC, backend="cupy")
    assert caught.value.field == "input"


def test_a_call_waits_for_the_pytorch_stream_of_its_input(backend: CupyBackend) -> None:
    import torch

    x = torch.zeros((64, 64, 112, 112), device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(100_000_000)  # cycles
        x += 1
        output = forward(x, SPEC, backend="cupy").output
    assert (backend.to_host(output) == 1).all()


def test_results_are_on_the_current_stream_of_cupy(backend: CupyBackend) -> None:
    import cupy

    x = values((16, 64, 56, 56), np.float32, is_hard=False)
    expected = forward(x, SPEC, backend="numpy").output
    with cupy.cuda.Stream(non_blocking=True) as stream:
        for _ in range(3):
            ours = forward(on_device(backend, x), SPEC, backend="cupy").output
            assert_same(backend, ours, expected)
        stream.synchronize()


def test_large_tensors_need_positions_of_64_bits(backend: CupyBackend) -> None:
    """The tensor of 4.3 GB exists only on the GPU; its rows repeat."""
    import torch

    repeats, height, width = 1024, 64, 32_784
    assert repeats * height * width > geometry.MAX_POSITIONS_32
    base = values((1, 1, height, width), np.float16, is_hard=False)
    expected = forward(base, PoolSpec("max", 2), backend="numpy").output
    x = torch.empty((repeats, height, width), dtype=torch.float16, device="cuda")
    x.copy_(torch.from_numpy(base[0]).cuda())
    x = x.view(1, 1, repeats * height, width)
    output = torch.from_dlpack(forward(x, PoolSpec("max", 2), backend="cupy").output)
    rows = torch.from_numpy(expected[0]).cuda()
    assert bool((output.view(repeats, height // 2, width // 2) == rows).all())
