"""`pooling explain`: rejected arguments, and results on which it and the engine disagree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pooling_cli.explain import check as _check
from pooling_engine import (
    InternalError,
    InvalidSpecError,
    InvalidTensorError,
    PoolSpec,
    backward,
    forward,
)
from tests.cli.support import BYTES, GAPS, HUGE, NAN, PLANE, SQUARES, TIED, bfloat16, explain_window

TABLE = np.arange(1, 17, dtype=np.float32).reshape(1, 1, 4, 4)


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ((0, 0, 1), "at is (0, 0, 1), which has 3 coordinates; the output has shape (1, 1, 2, 2)"),
        ((0, 0, 1, 1, 1), "so it must have 4: n, c, row, column"),
        ((0, 0, 2, 1), "coordinate 2 (row) is 2 but must be from 0 to 1"),
        ((0, 0, 0, -1), "coordinate 3 (column) is -1 but must be from 0 to 1"),
        ((0, 1, 0, 0), "coordinate 1 (c) is 1 but must be from 0 to 0"),
        ((0, 0, 0.5, 0), "it must be 4 integers: n, c, row, column"),
        (3, "at is 3; it must be 4 integers"),
    ],
)
def test_an_invalid_at_is_rejected_with_the_legal_values(at: Any, said: str) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        explain_window(TIED, PoolSpec("max", 2, 1), at)
    assert caught.value.field == "at"
    assert said in str(caught.value)


def test_an_empty_batch_has_no_output_to_explain() -> None:
    with pytest.raises(InvalidSpecError, match="the batch is empty") as caught:
        explain_window(np.zeros((0, 1, 4)), PoolSpec("max", 2), (0, 0, 0))
    assert caught.value.field == "at"


@pytest.mark.parametrize("gradient", [np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2), np.float32)])
def test_a_gradient_of_another_shape_or_type_is_rejected(gradient: Any) -> None:
    with pytest.raises(InvalidTensorError, match="the output is float64 of shape") as caught:
        explain_window(TIED, PoolSpec("max", 2, 1), (0, 0, 0, 0), gradient)
    assert caught.value.field == "output_gradient"


@pytest.mark.parametrize("mode", ["max", "min", "average", "sum", "lp"])
@pytest.mark.parametrize(
    "element", [(0, 0, 0, 0), (0, 0, 0, 2)], ids=["in the window", "beside it"]
)
def test_a_wrong_gradient_of_the_engine_is_an_internal_error(
    mode: str, element: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def backward_wrongly(*args: Any, **options: Any) -> Any:
        gradient = backward(*args, **options)
        gradient[element] += 1e-5
        return gradient

    monkeypatch.setattr(_check, "backward", backward_wrongly)
    with pytest.raises(InternalError, match="disagree on the gradient"):
        explain_window(TABLE, PoolSpec(mode, 2), (0, 0, 0, 0))


@pytest.mark.parametrize("mode", ["max", "min", "average", "sum", "lp"])
def test_a_wrong_output_of_the_engine_is_an_internal_error(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward_wrongly(*args: Any, **options: Any) -> Any:
        result = forward(*args, **options)
        result.output[0, 0, 0, 0] += 1e-5
        return result

    monkeypatch.setattr(_check, "forward", forward_wrongly)
    with pytest.raises(InternalError, match="disagree on the output"):
        explain_window(TABLE, PoolSpec(mode, 2), (0, 0, 0, 0))


def test_a_wrong_index_of_the_engine_is_an_internal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward_wrongly(*args: Any, **options: Any) -> Any:
        result = forward(*args, **options)
        result.indices[...] = 1
        return result

    monkeypatch.setattr(_check, "forward", forward_wrongly)
    with pytest.raises(InternalError, match="disagree on the selected tap: 3 by"):
        explain_window(TABLE, PoolSpec("max", 2), (0, 0, 0, 0))


@pytest.mark.parametrize("at", [(0, 0, 0), (0, 0, 1)], ids=["in the window", "in another"])
def test_a_nan_is_rejected_with_the_engine_s_error(at: tuple[int, ...]) -> None:
    x = np.array([1.0, NAN, 3.0, 4.0]).reshape(1, 1, 4)
    spec = PoolSpec("max", 2, nan_policy="error")
    with pytest.raises(InvalidTensorError) as engines:
        forward(x, spec)
    with pytest.raises(InvalidTensorError, match="input has a NaN in a window") as ours:
        explain_window(x, spec, at)
    assert str(ours.value) == str(engines.value)
    assert ours.value.field == engines.value.field == "input"


@pytest.mark.parametrize("mode", ["sum", "average"])
@pytest.mark.parametrize("at", [(0, 0, 0), (0, 1, 0)], ids=["in the window", "in another"])
def test_an_overflow_is_rejected_with_the_engine_s_error(mode: str, at: tuple[int, ...]) -> None:
    x = np.array([2**62, 2**62, 1, 2], np.int64).reshape(1, 2, 2)
    with pytest.raises(InvalidTensorError, match="sum overflows") as ours:
        explain_window(x, PoolSpec(mode, 2), at)
    assert ours.value.field == "input"


def test_a_gradient_for_integers_is_rejected() -> None:
    gradient = np.ones((1, 1, 1, 1), np.int8)
    with pytest.raises(InvalidTensorError, match="input is int8; integers have no") as caught:
        explain_window(BYTES, PoolSpec("max", 3), (0, 0, 0, 0), gradient)
    assert caught.value.field == "output_gradient"


def test_norms_of_integers_are_rejected_with_the_engine_s_error() -> None:
    with pytest.raises(InvalidTensorError, match='int8; mode "lp" accepts float16'):
        explain_window(BYTES, PoolSpec("lp", 3), (0, 0, 0, 0))


def test_an_at_outside_an_adaptive_output_is_rejected() -> None:
    with pytest.raises(InvalidSpecError, match=r"coordinate 2 \(position\) is 3") as caught:
        explain_window(SQUARES, PoolSpec("max", adaptive_output=3), (0, 0, 3))
    assert caught.value.field == "at"


WRONG_GRADIENTS = [
    (TIED, PoolSpec("max", 3, tie_policy="all")),
    (TIED, PoolSpec("max", 3, tie_policy="split")),
    (TIED, PoolSpec("average", adaptive_output=2)),
    (GAPS, PoolSpec("max", global_window=True, nan_policy="ignore")),
    (bfloat16([1.0, 1.0, 1.0]), PoolSpec("max", 3, tie_policy="split")),
]


@pytest.mark.parametrize(("x", "spec"), WRONG_GRADIENTS)
def test_a_wrong_gradient_of_any_kind_is_an_internal_error(
    x: Any, spec: PoolSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backward_wrongly(*args: Any, **options: Any) -> Any:
        gradient = backward(*args, **options)
        gradient.reshape(-1)[0] += gradient.dtype.type(0.01)
        return gradient

    monkeypatch.setattr(_check, "backward", backward_wrongly)
    with pytest.raises(InternalError, match="disagree on the gradient"):
        explain_window(x, spec, (0,) * x.ndim)


WRONG_OUTPUTS = [
    (BYTES, PoolSpec("sum", 3)),
    (BYTES, PoolSpec("average", 3)),
    (BYTES, PoolSpec("max", 3)),
    (HUGE[..., :3].copy(), PoolSpec("sum", 3)),
    (np.array([[[7]]], np.int16), PoolSpec("min", 2, 1, 1, 2)),
    (SQUARES, PoolSpec("max", adaptive_output=3)),
    (PLANE, PoolSpec("sum", global_window=True)),
]


@pytest.mark.parametrize(("x", "spec"), WRONG_OUTPUTS)
def test_a_wrong_output_of_any_kind_is_an_internal_error(
    x: Any, spec: PoolSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward_wrongly(*args: Any, **options: Any) -> Any:
        result = forward(*args, **options)
        result.output[...] -= 1
        return result

    monkeypatch.setattr(_check, "forward", forward_wrongly)
    with pytest.raises(InternalError, match="disagree on the output"):
        explain_window(x, spec, (0,) * x.ndim)


def test_a_nan_that_the_engine_accepts_is_an_internal_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forward_leniently(x: Any, spec: PoolSpec, **options: Any) -> Any:
        return forward(x, PoolSpec(spec.mode, spec.kernel), **options)

    monkeypatch.setattr(_check, "forward", forward_leniently)
    with pytest.raises(InternalError, match="disagree on a NaN in the window: rejected by"):
        explain_window(GAPS, PoolSpec("max", 3, nan_policy="error"), (0, 0, 0, 0))
