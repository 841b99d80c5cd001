"""Errors: raised before anything is sent, with the classes and argument names of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import pooling_client.torch as remote
from pooling_client import InvalidSpecError, InvalidTensorError, UnavailableError
from pooling_client.torch import InvalidInputError, functional
from tests.support.waiting import quiet_port

X = torch.randn(2, 3, 8, 8)
INDICES = torch.zeros(2, 3, 8, 8, dtype=torch.int64)
NOWHERE = "127.0.0.1:1"

# ruff: noqa: E501  a table, one case a line
# A function that would fail slowly if it sent anything, the error, and its text.
WRONG: list[tuple[str, Callable[..., Any], tuple[Any, ...], dict[str, Any], type, str]] = [
    ("shape", functional.max_pool2d, (X[0, 0], 2), {}, RuntimeError, r"input has 2 axes.*\(N, C, H, W\)"),
    ("axes", functional.max_pool1d, (X, 2), {}, RuntimeError, "input has 4 axes"),
    ("bool", functional.avg_pool2d, (X > 0, 2), {}, RuntimeError, 'input is torch.bool; for the mode "average" it must be one of float16'),
    ("complex", functional.avg_pool2d, (X * 1j, 2), {}, RuntimeError, "input is torch.complex64"),
    ("sparse", functional.avg_pool2d, (X.to_sparse(), 2), {}, RuntimeError, "input is torch.sparse_coo"),
    ("list", functional.avg_pool2d, ([[1.0]], 2), {}, TypeError, "input must be a tensor, not list"),
    ("lp of integers", functional.lp_pool2d, (X.int(), 2, 2), {}, RuntimeError, 'input is torch.int32; for the mode "lp" it must be'),
    ("kernel", functional.max_pool2d, (X, 0), {}, RuntimeError, r"kernel_size\[0\] is 0"),
    ("kernel is a value error", functional.max_pool2d, (X, -1), {}, ValueError, "kernel_size"),
    ("kernel type", functional.max_pool2d, (X, 2.5), {}, TypeError, "kernel_size must be an integer"),
    ("kernels", functional.max_pool2d, (X, (2, 2, 2)), {}, ValueError, "kernel_size has 3 sizes; it must have one or 2"),
    ("large kernel", functional.max_pool2d, (X, 9), {}, RuntimeError, "kernel_size"),
    ("stride", functional.avg_pool2d, (X, 2, 0), {}, RuntimeError, r"stride\[0\] is 0"),
    ("padding", functional.avg_pool2d, (X, 2, 2, 2), {}, RuntimeError, r"padding.*\(kernel_size - 1\)"),
    ("padding name", functional.max_pool2d, (X, 2), {"padding": "same"}, RuntimeError, "padding is 'same'"),
    ("ceil_mode", functional.max_pool2d, (X, 2), {"ceil_mode": 1}, TypeError, "ceil_mode must be True or False"),
    ("divisor", functional.avg_pool2d, (X, 2), {"divisor_override": 0}, RuntimeError, "divisor_override is 0"),
    ("divisor type", functional.avg_pool2d, (X, 2), {"divisor_override": "2"}, TypeError, "divisor_override must be a number"),
    ("norm", functional.lp_pool2d, (X, 0.5, 2), {}, RuntimeError, "norm_type is 0.5"),
    ("output", functional.adaptive_avg_pool2d, (X, 0), {}, RuntimeError, r"output_size\[0\] is 0"),
    ("outputs", functional.adaptive_avg_pool2d, (X, (1, 2, 3)), {}, ValueError, "output_size has 3 sizes"),
    ("tie_policy", functional.max_pool2d, (X, 2), {"tie_policy": "last"}, RuntimeError, "tie_policy is 'last'"),
    ("indices of ties", functional.max_pool2d, (X, 2), {"tie_policy": "all", "return_indices": True}, RuntimeError, "return_indices needs"),
    ("server", functional.max_pool2d, (X, 2), {"server": 5}, TypeError, "server must be a string or None, not int"),
    ("target", functional.max_pool2d, (X, 2), {"server": "http://h"}, RuntimeError, "target is 'http://h'"),
    ("index type", functional.max_unpool2d, (X, INDICES.int(), 2), {}, RuntimeError, "indices are torch.int32"),
    ("index shape", functional.max_unpool2d, (X, INDICES[0], 2), {}, RuntimeError, "indices have the shape"),
    ("unpool type", functional.max_unpool2d, (X.int(), INDICES, 2), {}, RuntimeError, "input is torch.int32"),
    ("unpool sizes", functional.max_unpool2d, (X, INDICES, 2), {"output_size": (16,)}, ValueError, "output_size has 1 sizes; it must have 2 or 4"),
    ("unpool size type", functional.max_unpool2d, (X, INDICES, 2), {"output_size": 16}, TypeError, "output_size must be a sequence of integers, not 16"),
    ("filter", remote.replace, (torch.nn.MaxPool2d(2),), {"filter_fn": 5}, TypeError, "filter_fn must be a function or None, not 5"),
    ("layer of several", remote.PoolAll, ([torch.nn.MaxPool2d(0)],), {}, RuntimeError, r"layers\[0\]: kernel_size\[0\] is 0"),
    ("unpool size", functional.max_unpool2d, (X, INDICES, 2), {"output_size": (99, 16)}, ValueError, r"output_size\[0\] is 99; it must be between 14 and 18"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("function", "arguments", "options", "error", "text"),
    [row[1:] for row in WRONG],
    ids=[row[0] for row in WRONG],
)
def test_wrong_arguments(
    function: Any, arguments: Any, options: Any, error: type, text: str, calls: list[Any]
) -> None:
    with pytest.raises(error, match=text) as caught:
        function(*arguments, **{"server": NOWHERE} | options)
    assert not isinstance(caught.value, ConnectionError)


def test_numbers_of_numpy_are_numbers(address: str) -> None:
    divided = functional.avg_pool2d(X, 2, divisor_override=np.int64(3), server=address)
    assert torch.equal(divided, functional.avg_pool2d(X, 2, divisor_override=3.0, server=address))
    ceiled = functional.avg_pool2d(X, 3, ceil_mode=np.bool_(True), server=address)
    assert torch.equal(ceiled, functional.avg_pool2d(X, 3, ceil_mode=True, server=address))
    norms = functional.lp_pool2d(X, np.float32(3), 2, server=address)
    assert torch.equal(norms, functional.lp_pool2d(X, 3, 2, server=address))


def tangent(x: torch.Tensor) -> torch.Tensor:
    with torch.autograd.forward_ad.dual_level():
        return functional.avg_pool2d(torch.autograd.forward_ad.make_dual(x, x), 2, server=NOWHERE)


def pooled(x: torch.Tensor) -> torch.Tensor:
    return functional.max_pool2d(x, 2, server=NOWHERE)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda: torch.func.vmap(pooled)(X[None]), "torch.func, which is not supported"),
        (lambda: torch.func.grad(lambda x: pooled(x).sum())(X), "torch.func"),
        (lambda: torch.func.jvp(pooled, (X,), (X,)), "torch.func"),
        (lambda: tangent(X), "forward-mode differentiation, which is not supported"),
        (lambda: pooled(torch.nested.nested_tensor([X[0], X[1]])), "input is nested"),
        (
            lambda: functional.max_unpool2d(X, INDICES.to("meta"), 2, server=NOWHERE),
            "indices are on meta, but input is on cpu",
        ),
    ],
    ids=["vmap", "grad", "jvp", "dual", "nested", "devices"],
)
def test_unsupported_tensors(function: Any, text: str, calls: list[Any]) -> None:
    """Without these errors, jvp returned a derivative of 0, and the devices were mixed."""
    with pytest.raises(InvalidInputError, match=text):
        function()
    assert not calls


def test_errors_are_also_those_of_the_engine() -> None:
    with pytest.raises(InvalidSpecError) as caught:
        functional.max_pool2d(X, 0, server=NOWHERE)
    assert caught.value.field == "kernel_size[0]"
    with pytest.raises(InvalidTensorError) as raised:
        functional.sum_pool2d(X > 0, 2, server=NOWHERE)
    assert raised.value.field == "input"


def test_an_invalid_index_is_an_error(address: str) -> None:
    with pytest.raises(RuntimeError, match=r"the index at .* is 99"):
        functional.max_unpool2d(X, INDICES + 99, 2, server=address)


def test_an_unreachable_server_fails_forward_with_one_error() -> None:
    target = f"127.0.0.1:{quiet_port()}"
    remote.connect(target, timeout=1)
    with pytest.raises(UnavailableError, match=target) as caught:
        remote.MaxPool2d(2, server=target)(X)
    assert isinstance(caught.value, ConnectionError)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
