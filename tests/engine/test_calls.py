"""Calls as values: normalised, checked at construction, frozen."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

import pooling_engine
from pooling_engine import (
    ArraySpec,
    BackwardCall,
    ForwardCall,
    IndexFormat,
    InvalidSpecError,
    InvalidTensorError,
    PoolingError,
    PoolSpec,
    run,
)
from tests.support import cases, oracle

pytestmark = pytest.mark.once

X = cases.normal((2, 3, 9, 7))
SPEC = PoolSpec("max", 3, 2)
SHAPE = (2, 3, 4, 3)
DY = cases.normal(SHAPE)


def test_the_plan_of_a_call_is_the_plan_of_its_input():
    assert ForwardCall(X, SPEC).plan is pooling_engine.plan(SPEC, X.shape, X.dtype)
    assert BackwardCall(DY, SPEC, input=X).plan is pooling_engine.plan(SPEC, X.shape, X.dtype)


def test_an_array_in_native_order_is_not_copied():
    call = BackwardCall(DY, SPEC, input=X)
    assert ForwardCall(X, SPEC).input is X
    assert call.output_gradient is DY
    assert call.input is X


@pytest.mark.parametrize(
    "disguise",
    [np.asfortranarray, lambda x: x.astype(">f4"), np.ndarray.tolist, lambda x: x[..., ::-1]],
    ids=["Fortran order", "big endian", "list", "negative stride"],
)
def test_other_inputs_are_normalised(disguise):
    given = disguise(X.astype("float64") if disguise is np.ndarray.tolist else X)
    tensor = ForwardCall(given, SPEC).input
    assert tensor.flags.c_contiguous
    assert tensor.dtype.isnative
    np.testing.assert_array_equal(tensor, given)


@pytest.mark.parametrize(
    ("index_format", "dtype"), [("window", "uint8"), ("plane", "int64"), ("tensor", "int64")]
)
def test_a_forward_call_describes_its_results(index_format, dtype):
    output = ArraySpec(SHAPE, np.dtype("float32"))
    call = ForwardCall(X, SPEC, return_indices=True, index_format=index_format)
    assert call.index_format is IndexFormat(index_format)
    assert call.result_specs == {"output": output, "indices": (SHAPE, np.dtype(dtype))}
    assert ForwardCall(X, SPEC, index_format=index_format).result_specs == {"output": output}
    for name, result in run(call)._asdict().items():
        assert call.result_specs[name] == (result.shape, result.dtype)
        assert call.result_specs[name].nbytes == result.nbytes


@pytest.mark.parametrize("mode", ["sum", "average"])
def test_the_output_of_integers_has_its_own_type(mode):
    call = ForwardCall(cases.extremes(X.shape, "int8"), PoolSpec(mode, 3))
    (spec,) = call.result_specs.values()
    assert spec.dtype == run(call).output.dtype == call.plan.output_dtype


def test_a_backward_call_describes_its_result():
    for residual in ({"input": X}, {"input_shape": X.shape, "indices": np.zeros(SHAPE, "u1")}):
        call = BackwardCall(DY, SPEC, **residual)
        assert call.input_shape == X.shape
        assert call.result_specs == {"input_gradient": (X.shape, X.dtype)}
        assert call.result_specs["input_gradient"].nbytes == run(call).nbytes


@pytest.mark.parametrize(
    ("indices", "given", "expected"),
    [
        (np.zeros(SHAPE, "u1"), None, "window"),
        (np.zeros(SHAPE, "i8"), None, "plane"),
        (np.zeros(SHAPE, "i8"), "tensor", "tensor"),
        (np.zeros(SHAPE, "i8"), IndexFormat.PLANE, "plane"),
    ],
)
def test_a_backward_call_names_the_format_of_its_indices(indices, given, expected):
    call = BackwardCall(DY, SPEC, X.shape, indices, index_format=given)
    assert call.index_format is IndexFormat(expected)


def test_a_backward_call_without_indices_has_no_format():
    assert BackwardCall(DY, SPEC, input=X).index_format is None


@pytest.mark.parametrize(
    ("make", "error", "field"),
    [
        (lambda: ForwardCall([["x"]], SPEC), InvalidTensorError, "input"),
        (lambda: ForwardCall(X, "max"), InvalidSpecError, "spec"),
        (lambda: ForwardCall(X, PoolSpec("sum", 2), True), InvalidSpecError, "return_indices"),
        (lambda: ForwardCall(X, SPEC, 1), InvalidSpecError, "return_indices"),
        (lambda: ForwardCall(X, SPEC, True, "flat"), InvalidSpecError, "index_format"),
        (lambda: ForwardCall(X, SPEC, True, ["plane"]), InvalidSpecError, "index_format"),
        (lambda: BackwardCall(DY, SPEC), InvalidTensorError, "input_shape"),
        (lambda: BackwardCall(DY, SPEC, X.shape), InvalidTensorError, "indices"),
        (lambda: BackwardCall(X, SPEC, input=X), InvalidTensorError, "output_gradient"),
        (
            lambda: BackwardCall(DY, SPEC, input=X, index_format="plane"),
            InvalidSpecError,
            "index_format",
        ),
        (
            lambda: BackwardCall(DY, SPEC, X.shape, np.zeros(SHAPE, "u2")),
            InvalidTensorError,
            "indices",
        ),
    ],
)
def test_construction_rejects_wrong_arguments(make, error, field):
    with pytest.raises(error) as caught:
        make()
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("make", "is_planned"),
    [
        (lambda: ForwardCall(X, PoolSpec("sum", 2), True), True),
        (lambda: BackwardCall(DY, SPEC, (2, 3, 2**40, 7), np.zeros(SHAPE, "u1")), True),
        (lambda: BackwardCall(DY, SPEC, X.shape), True),
        (lambda: BackwardCall(DY, SPEC, X.shape, np.zeros(SHAPE, "u2")), True),
        (lambda: ForwardCall([["x"]], SPEC), False),
        (lambda: BackwardCall(DY, SPEC), False),
    ],
)
def test_errors_after_planning_have_the_plan(make, is_planned):
    """A server checks the limits of such a call, too."""
    with pytest.raises(PoolingError) as caught:
        make()
    assert (caught.value.plan is not None) == is_planned


@pytest.mark.parametrize(
    "make", [lambda: ForwardCall(X, SPEC), lambda: BackwardCall(DY, SPEC, input=X)]
)
def test_a_call_is_frozen_and_replaceable(make):
    call = make()
    with pytest.raises(FrozenInstanceError):
        call.spec = SPEC
    assert replace(call).plan is call.plan
    wider = replace(call, spec=PoolSpec("max", 3, 2, nan_policy="ignore"))
    assert wider.plan.nan_policy == "ignore"
    with pytest.raises(InvalidSpecError):
        replace(call, spec=None)


def test_the_entries_of_indices_are_checked_by_run():
    call = BackwardCall(DY, SPEC, X.shape, np.full(SHAPE, 9, "u1"))
    with pytest.raises(InvalidTensorError, match=r"\(0, 0, 0, 0\) is 9") as caught:
        run(call)
    assert caught.value.field == "indices"


def test_run_rejects_what_is_not_a_call():
    with pytest.raises(InvalidSpecError, match="must be a ForwardCall or a BackwardCall") as caught:
        run(X)
    assert caught.value.field == "call"


def test_run_and_the_functions_agree():
    output, indices = pooling_engine.forward(X, SPEC, return_indices=True, index_format="tensor")
    for own, other in zip(
        run(ForwardCall(X, SPEC, True, "tensor")), (output, indices), strict=True
    ):
        oracle.assert_same_bits(own, other)
    dx = pooling_engine.backward(
        DY, SPEC, input_shape=X.shape, indices=indices, index_format="tensor"
    )
    call = BackwardCall(DY, SPEC, X.shape, indices, index_format="tensor")
    oracle.assert_same_bits(run(call), dx)
