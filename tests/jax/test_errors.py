"""Errors: raised when a function is traced, or by a step without a server."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pooling_client.jax as remote
from pooling_client import InvalidSpecError, InvalidTensorError, PoolingClient
from tests.support.waiting import quiet_port

X = jnp.ones((2, 8, 8, 3))
W = (2, 2)

# ruff: noqa: E501  a table, one case a line
WRONG: list[tuple[str, Callable[..., Any], tuple[Any, ...], dict[str, Any], type, str]] = [
    ("list", remote.max_pool, ([[1.0]], W), {}, TypeError, "inputs must be an array, not list"),
    ("bool", remote.max_pool, (X > 0, W), {}, TypeError, "inputs is bool; it must be one of float16"),
    ("complex", remote.avg_pool, (X * 1j, W), {}, TypeError, "inputs is complex64"),
    ("axes", remote.max_pool, (X[0, 0], W), {}, ValueError, r"inputs has the shape \(8, 3\); it must have the shape \(\.\.\., D1, D2, C\)"),
    ("an empty axis", remote.max_pool, (X[:, :0], W), {}, ValueError, r"inputs has the shape \(2, 0, 8, 3\); spatial axes and channels must not be empty"),
    ("sum of integers", remote.sum_pool, (X.astype(int), W), {}, TypeError, "returns int64: convert inputs"),
    ("lp of integers", remote.lp_pool, (X.astype(int), W), {}, ValueError, "int32"),
    ("window", remote.max_pool, (X, (0, 2)), {}, ValueError, r"window_shape\[0\] is 0"),
    ("window of bools", remote.max_pool, (X, (True, 2)), {}, TypeError, r"must be a sequence of integers, not \(True, 2\)"),
    ("window type", remote.max_pool, (X, 2), {}, TypeError, "window_shape must be a sequence of integers, not 2"),
    ("window of floats", remote.max_pool, (X, (2.5, 2)), {}, TypeError, "window_shape must be a sequence"),
    ("no window", remote.max_pool, (X, ()), {}, ValueError, "window_shape has 0 sizes; it must have at least 1"),
    ("large window", remote.max_pool, (X, (9, 9)), {}, ValueError, "window_shape"),
    ("strides", remote.max_pool, (X, W, (1, 1, 1)), {}, ValueError, "strides has 3 sizes; it must have 2"),
    ("stride", remote.max_pool, (X, W, (1, 0)), {}, ValueError, r"strides\[1\] is 0"),
    ("padding name", remote.max_pool, (X, W), {"padding": "FULL"}, ValueError, "padding is 'FULL'; it must be one of VALID, SAME"),
    ("padding type", remote.max_pool, (X, W), {"padding": 1}, TypeError, "padding must be a string or a sequence of pairs, not 1"),
    ("paddings", remote.max_pool, (X, W), {"padding": ((1, 1),)}, ValueError, "padding has 1 pairs; it must have 2"),
    ("pair", remote.max_pool, (X, W), {"padding": ((1, 1), (1,))}, ValueError, r"padding\[1\] has 1 sizes; it must have 2"),
    ("large padding", remote.max_pool, (X, W), {"padding": ((2, 0), (0, 0))}, ValueError, "padding.*window_shape"),
    ("count", remote.avg_pool, (X, W), {"count_include_pad": 1}, ValueError, "count_include_pad"),
    ("norm", remote.lp_pool, (X, W), {"norm_p": 0.5}, ValueError, "norm_p is 0.5"),
    ("server", remote.max_pool, (X, W), {"server": 5}, TypeError, "server must be a string or None, not int"),
    ("target", remote.max_pool, (X, W), {"server": "http://h"}, ValueError, "target is 'http://h'"),
]  # fmt: skip


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if a client sends a call."""

    def sent(*_: Any, **__: Any) -> None:
        raise AssertionError("a call was sent")

    monkeypatch.setattr(PoolingClient, "forward", sent)


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("row", WRONG, ids=[row[0] for row in WRONG])
def test_wrong_arguments(row: Any) -> None:
    _, function, (x, *arguments), options, error, text = row
    options = {"server": "127.0.0.1:1"} | options
    with pytest.raises(error, match=text):
        function(x, *arguments, **options)
    if not isinstance(x, list):
        with pytest.raises(error, match=text):
            jax.make_jaxpr(lambda x: function(x, *arguments, **options))(np.asarray(x))


@pytest.mark.parametrize("name", ["window_shape", "strides"])
def test_sizes_that_jit_traces_need_static_arguments(name: str) -> None:
    def pooled(x: Any, sizes: Any) -> Any:
        return remote.max_pool(x, **{"window_shape": W, name: sizes})

    with pytest.raises(TypeError, match=f"{name} must be a sequence of integers.*static_argnames"):
        jax.jit(pooled)(X, W)
    jax.make_jaxpr(pooled, static_argnums=1)(X, W)


def test_errors_are_also_those_of_the_engine() -> None:
    with pytest.raises(InvalidSpecError) as caught:
        remote.max_pool(X, (0, 2))
    assert caught.value.field == "window_shape[0]"
    with pytest.raises(InvalidTensorError) as raised:
        remote.max_pool(X[0, 0], W)
    assert raised.value.field == "inputs"


@pytest.mark.parametrize("wrap", [jax.jit, lambda f: f], ids=["jit", "eager"])
def test_an_unreachable_server_fails_the_step_with_one_error(
    wrap: Any, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    target = f"127.0.0.1:{quiet_port()}"
    remote.connect(target, timeout=0.5)
    step = wrap(jax.grad(lambda x: remote.max_pool(x, W, server=target).sum()))
    with caplog.at_level(logging.WARNING), pytest.raises(jax.errors.JaxRuntimeError) as caught:
        step(X).block_until_ready()
    assert f"UnavailableError: no server answers at {target}" in str(caught.value).splitlines()[-1]
    assert not caplog.records
    assert remote.max_pool(X, W, server=address).shape == (2, 7, 7, 3)


def test_other_errors_of_callbacks_are_still_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Any) -> Any:
        raise KeyError("other")

    with pytest.raises(jax.errors.JaxRuntimeError):
        jax.pure_callback(fail, jax.ShapeDtypeStruct((), X.dtype), X).block_until_ready()
    assert "pure_callback failed" in caplog.text
