"""Results written into arrays of the caller: `out`, and the `results` of `run`."""

from __future__ import annotations

import numpy as np
import pytest

from pooling_engine import (
    BackwardCall,
    ForwardCall,
    InvalidSpecError,
    InvalidTensorError,
    PoolSpec,
    backward,
    forward,
    run,
)
from tests.support import cases, oracle

X = cases.normal((2, 3, 9, 7))
SPEC = PoolSpec("max", 3, 2)
SHAPE = (2, 3, 4, 3)
FORMATS = {"window": "uint8", "plane": "int64", "tensor": "int64"}
VALUES = {
    "normal": X,
    "hard": cases.hard(X.shape),
    "float16": X.astype(np.float16),
    "int8": cases.extremes(X.shape, "int8"),
}


def filled(shape=SHAPE, dtype="float32"):
    """Return an array whose every element must be overwritten."""
    return np.full(shape, 99, dtype)


@pytest.mark.parametrize("index_format", FORMATS)
@pytest.mark.parametrize("x", VALUES.values(), ids=VALUES.keys())
@pytest.mark.parametrize("mode", ["max", "min"])
def test_run_writes_output_and_indices(mode, x, index_format):
    call = ForwardCall(x, PoolSpec(mode, 3, 2), True, index_format)
    expected = run(call)
    results = {name: filled(*spec) for name, spec in call.result_specs.items()}
    given = run(call, results)
    assert given.output is results["output"]
    assert given.indices is results["indices"]
    for own, other in zip(given, expected, strict=True):
        oracle.assert_same_bits(own, other)


def test_run_allocates_the_results_that_are_not_given():
    call = ForwardCall(X, SPEC, return_indices=True)
    expected, indices = run(call), filled(dtype=np.uint8)
    given = run(call, {"indices": indices})
    assert given.indices is indices
    for own, other in zip(given, expected, strict=True):
        oracle.assert_same_bits(own, other)


@pytest.mark.parametrize(("index_format", "dtype"), FORMATS.items())
def test_run_accepts_unaligned_arrays(index_format, dtype):
    call = ForwardCall(X, SPEC, True, index_format)
    results = {
        "output": cases.unaligned(filled()),
        "indices": cases.unaligned(filled(dtype=dtype)),
    }
    expected = run(call)
    for own, other in zip(run(call, results), expected, strict=True):
        oracle.assert_same_bits(own, other)
    dx = cases.unaligned(filled(X.shape))
    backward(expected.output, SPEC, input=X, out=dx)
    oracle.assert_same_bits(dx, backward(expected.output, SPEC, input=X))


@pytest.mark.parametrize("index_format", FORMATS)
def test_out_takes_the_output_alone(index_format):
    options = {"return_indices": True, "index_format": index_format}
    out, expected = filled(), forward(X, SPEC, **options)
    given = forward(X, SPEC, out=out, **options)
    assert given.output is out
    oracle.assert_same_bits(out, expected.output)
    oracle.assert_same_bits(given.indices, expected.indices)


@pytest.mark.parametrize("options", [*cases.MODES, {"mode": "min", "tie_policy": "split"}])
def test_out_takes_the_gradient(options):
    spec = PoolSpec(**options, kernel=3, stride=2)
    needs_input = options["mode"] in ("max", "min", "lp")
    residual = {"input": X} if needs_input else {"input_shape": X.shape}
    dy, dx = cases.normal(SHAPE), filled(X.shape)
    expected = backward(dy, spec, **residual)
    assert backward(dy, spec, out=dx, **residual) is dx
    oracle.assert_same_bits(dx, expected)
    again = filled(X.shape)
    assert run(BackwardCall(dy, spec, **residual), {"input_gradient": again}) is again
    oracle.assert_same_bits(again, expected)


OUTPUTS = {
    "another shape": lambda: filled((2, 3, 3, 4)),
    "another rank": lambda: filled((*SHAPE, 1)),
    "another type": lambda: filled(dtype="float64"),
    "another byte order": lambda: filled(dtype=">f4"),
    "read-only": lambda: cases.read_only(filled()),
    "Fortran order": lambda: np.asfortranarray(filled()),
    "every other element": lambda: filled((2, 3, 4, 6))[..., ::2],
    "a list": lambda: filled().tolist(),
}
INDICES = {
    "another shape": lambda: filled((2, 3, 3, 4), np.uint8),
    "another type": lambda: filled(dtype=np.int64),
    "a wider type": lambda: filled(dtype=np.uint16),
    "a signed type": lambda: filled(dtype=np.int8),
    "Fortran order": lambda: np.asfortranarray(filled(dtype=np.uint8)),
}


def rejection_of(call, **results):
    """Return the text of the error about an array to write into."""
    with pytest.raises(InvalidTensorError) as caught:
        run(call, results)
    assert caught.value.field == "out"
    return str(caught.value)


@pytest.mark.parametrize("make", OUTPUTS.values(), ids=OUTPUTS.keys())
def test_an_output_array_that_does_not_fit_is_rejected(make):
    text = rejection_of(ForwardCall(X, SPEC), output=make())
    with pytest.raises(InvalidTensorError) as caught:
        forward(X, SPEC, out=make())
    assert (caught.value.field, str(caught.value)) == ("out", text)


def test_an_error_says_why_an_array_does_not_fit():
    for out, words in (
        (filled().T.copy().T, "not contiguous"),
        (cases.read_only(filled()), "read-only"),
        (filled().astype(">f4"), "in the other byte order"),
    ):
        assert words in rejection_of(ForwardCall(X, SPEC), output=out)


@pytest.mark.parametrize("make", INDICES.values(), ids=INDICES.keys())
def test_an_index_array_that_does_not_fit_is_rejected(make):
    text = rejection_of(ForwardCall(X, SPEC, True), output=filled(), indices=make())
    assert "uint8 array of shape (2, 3, 4, 3)" in text


@pytest.mark.parametrize("index_format", ["plane", "tensor"])
def test_positions_need_an_int64_array(index_format):
    call = ForwardCall(X, SPEC, True, index_format)
    assert "int64 array of shape (2, 3, 4, 3)" in rejection_of(call, indices=filled(dtype="u1"))


@pytest.mark.parametrize(
    ("call", "name", "legal"),
    [
        (ForwardCall(X, SPEC), "indices", '"output"'),
        (ForwardCall(X, SPEC, True), "input_gradient", '"output", "indices"'),
        (BackwardCall(filled(), SPEC, input=X), "output", '"input_gradient"'),
    ],
    ids=["indices", "gradient", "output"],
)
def test_a_result_that_the_call_does_not_have_is_rejected(call, name, legal):
    with pytest.raises(InvalidSpecError, match=f"this call has {legal}") as caught:
        run(call, {name: filled()})
    assert caught.value.field == f"results[{name}]"


def test_an_output_array_that_shares_memory_with_the_input_is_rejected():
    x = np.zeros((1, 1, 1, 48), np.float32)
    spec, view = PoolSpec("max", (1, 3), (1, 1), (0, 1)), x.view()
    for call in (ForwardCall(x, spec), ForwardCall(x, spec, return_indices=True)):
        assert rejection_of(call, output=view) == "out shares memory with an input"


@pytest.mark.parametrize(("index_format", "dtype"), FORMATS.items())
def test_an_index_array_that_shares_memory_is_rejected(index_format, dtype):
    x = np.zeros((1, 1, 1, 48), np.float64)
    call = ForwardCall(x, PoolSpec("max", (1, 3), (1, 1), (0, 1)), True, index_format)
    indices = x.view(dtype)[..., :48]
    assert "shares memory" in rejection_of(call, output=np.zeros_like(x), indices=indices)
    output = np.zeros_like(x)
    indices = output.view(dtype)[..., -48:]
    assert "shares memory" in rejection_of(call, output=output, indices=indices)


def test_a_gradient_array_that_shares_memory_with_an_input_is_rejected():
    memory = np.zeros(X.shape, np.float32)
    dy = memory.reshape(-1)[: np.prod(SHAPE)].reshape(SHAPE)
    marks = memory.reshape(-1).view(np.uint8)[: np.prod(SHAPE)].reshape(SHAPE)
    for gradient, residual in (
        (dy, {"indices": np.zeros(SHAPE, np.uint8)}),
        (np.zeros(SHAPE, np.float32), {"indices": marks}),
        (np.zeros(SHAPE, np.float32), {"input": memory}),
    ):
        with pytest.raises(InvalidTensorError, match="out shares memory") as caught:
            backward(gradient, SPEC, input_shape=X.shape, out=memory, **residual)
        assert caught.value.field == "out"
