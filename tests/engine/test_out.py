"""Results written into arrays that the caller gives: an output, or it and its indices."""

from __future__ import annotations

import numpy as np
import pytest

from pooling_engine import InvalidTensorError, PoolSpec, backward, forward
from tests.support import cases, oracle

X = cases.normal((2, 3, 9, 7))
SPEC = PoolSpec("max", 3, 2)
SHAPE = (2, 3, 4, 3)
VALUES = {
    "normal": X,
    "hard": cases.hard(X.shape),
    "float16": X.astype(np.float16),
    "int8": cases.extremes(X.shape, "int8"),
}


def filled(shape=SHAPE, dtype="float32"):
    """An array whose every element must be overwritten."""
    return np.full(shape, 99, dtype)


@pytest.mark.parametrize("x", VALUES.values(), ids=VALUES.keys())
@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_pair_gets_the_output_and_the_indices(mode, x):
    spec = PoolSpec(mode, 3, 2)
    expected = forward(x, spec, return_indices=True)
    pair = filled(dtype=x.dtype), filled(dtype=np.uint8)
    given = forward(x, spec, return_indices=True, out=pair)
    for result, own, other in zip(given, pair, expected, strict=True):
        assert result is own
        oracle.assert_same_bits(own, other)


def test_arrays_that_are_not_aligned():
    pair = cases.unaligned(filled()), cases.unaligned(filled(dtype=np.uint8))
    expected = forward(X, SPEC, return_indices=True)
    for own, other in zip(forward(X, SPEC, return_indices=True, out=pair), expected, strict=True):
        oracle.assert_same_bits(own, other)
    dx = cases.unaligned(filled(X.shape))
    backward(expected.output, SPEC, input=X, out=dx)
    oracle.assert_same_bits(dx, backward(expected.output, SPEC, input=X))


@pytest.mark.parametrize("format_of_indices", ["window", "plane", "tensor"])
def test_an_output_alone_may_have_indices_of_any_format(format_of_indices):
    how = {"return_indices": True, "index_format": format_of_indices}
    out, expected = filled(), forward(X, SPEC, **how)
    given = forward(X, SPEC, out=out, **how)
    assert given.output is out
    oracle.assert_same_bits(out, expected.output)
    oracle.assert_same_bits(given.indices, expected.indices)


@pytest.mark.parametrize("options", [*cases.MODES, {"mode": "min", "tie_policy": "split"}])
def test_a_gradient(options):
    spec = PoolSpec(**options, kernel=3, stride=2)
    needs_input = options["mode"] in ("max", "min", "lp")
    how = {"input": X} if needs_input else {"input_shape": X.shape}
    dy, dx = cases.normal(SHAPE), filled(X.shape)
    assert backward(dy, spec, out=dx, **how) is dx
    oracle.assert_same_bits(dx, backward(dy, spec, **how))


def unwritable():
    array = filled()
    array.flags.writeable = False
    return array


PLACES = {
    "another shape": lambda: filled((2, 3, 3, 4)),
    "another rank": lambda: filled((*SHAPE, 1)),
    "another type": lambda: filled(dtype="float64"),
    "of other bytes": lambda: filled(dtype=">f4"),
    "read only": unwritable,
    "Fortran order": lambda: np.asfortranarray(filled()),
    "every other": lambda: filled((2, 3, 4, 6))[..., ::2],
    "a list": lambda: filled().tolist(),
}
MARKS = {
    "another shape": lambda: filled((2, 3, 3, 4), np.uint8),
    "another type": lambda: filled(dtype=np.int64),
    "a wider type": lambda: filled(dtype=np.uint16),
    "a signed type": lambda: filled(dtype=np.int8),
    "Fortran order": lambda: np.asfortranarray(filled(dtype=np.uint8)),
}


def refused(x=X, spec=SPEC, **options):
    with pytest.raises(InvalidTensorError) as caught:
        forward(x, spec, **options)
    assert caught.value.field == "out"
    return str(caught.value)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_an_output_that_does_not_fit_is_refused(place):
    refused(out=place())
    refused(return_indices=True, out=(place(), filled(dtype=np.uint8)))


def test_what_is_wrong_with_an_output_is_said():
    for out, words in (
        (filled().T.copy().T, "not contiguous"),
        (cases.read_only(filled()), "read-only"),
        (filled().astype(">f4"), "in the other byte order"),
    ):
        assert words in refused(out=out)


@pytest.mark.parametrize("marks", MARKS.values(), ids=MARKS.keys())
def test_indices_that_do_not_fit_are_refused(marks):
    assert "uint8 array of shape (2, 3, 4, 3)" in refused(
        return_indices=True, out=(filled(), marks())
    )


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 2),
        ({"return_indices": True, "index_format": "plane"}, 2),
        ({"return_indices": True, "index_format": "tensor"}, 2),
        ({"return_indices": True}, 1),
        ({"return_indices": True}, 3),
    ],
    ids=cases.name_of,
)
def test_a_pair_goes_with_window_indices_only(options, count):
    out = (filled(), filled(dtype=np.uint8), None)[:count]
    assert refused(out=out, **options).startswith("out may be a pair")


def test_an_output_that_shares_memory_with_the_input_is_refused():
    x = np.zeros((1, 1, 1, 48), np.float32)
    spec, view = PoolSpec("max", (1, 3), (1, 1), (0, 1)), x.view()
    assert refused(x, spec, out=view) == "out shares memory with an input"
    marks = np.zeros(x.shape, np.uint8)
    assert refused(x, spec, return_indices=True, out=(view, marks)) == refused(x, spec, out=view)


def test_indices_that_share_memory_are_refused():
    x = np.zeros((1, 1, 1, 48), np.float32)
    spec = PoolSpec("max", (1, 3), (1, 1), (0, 1))
    marks = x.view(np.uint8)[..., :48]
    refused(x, spec, return_indices=True, out=(np.zeros_like(x), marks))
    output = np.zeros_like(x)
    marks = output.view(np.uint8)[..., 96:144]
    refused(x, spec, return_indices=True, out=(output, marks))


def test_a_gradient_that_shares_memory_with_what_it_is_computed_from_is_refused():
    memory = np.zeros(X.shape, np.float32)
    dy = memory.reshape(-1)[: np.prod(SHAPE)].reshape(SHAPE)
    marks = memory.reshape(-1).view(np.uint8)[: np.prod(SHAPE)].reshape(SHAPE)
    for gradient, how in (
        (dy, {"indices": np.zeros(SHAPE, np.uint8)}),
        (np.zeros(SHAPE, np.float32), {"indices": marks}),
        (np.zeros(SHAPE, np.float32), {"input": memory}),
    ):
        with pytest.raises(InvalidTensorError, match="out shares memory") as caught:
            backward(gradient, SPEC, input_shape=X.shape, out=memory, **how)
        assert caught.value.field == "out"
