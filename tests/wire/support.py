"""Samples of every message with tensors, and comparisons of what was decoded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import grpc
import numpy as np

import pooling_engine
import pooling_wire
from pooling_engine import (
    BackwardCall,
    ForwardAllCall,
    ForwardCall,
    ForwardResult,
    IndexFormat,
    PoolSpec,
)
from pooling_wire import METHODS
from pooling_wire.messages.specs import encode_spec
from pooling_wire.methods import Method

ERRORS = [getattr(pooling_engine, name) for name in pooling_engine.__all__ if "Error" in name]
CONCRETE_ERRORS = [error for error in ERRORS if error is not pooling_engine.PoolingError]

X, Y = np.ones((1, 2, 4, 4), np.float32), np.ones((1, 2, 2, 2), np.float32)
INDICES = np.zeros((1, 2, 2, 2), np.uint8)
SPEC = PoolSpec("max", 2)


class Samples(NamedTuple):
    """Calls and results of one method, by what is special about them."""

    calls: dict[str, Any]
    results: dict[str, Any]


SAMPLES = {
    "Forward": Samples(
        calls={
            "output": ForwardCall(X, SPEC),
            "with indices": ForwardCall(X, SPEC, True, IndexFormat.PLANE),
            "three layers": ForwardAllCall(
                (
                    ForwardCall(X, SPEC),
                    ForwardCall(X, PoolSpec("average", 3)),
                    ForwardCall(X, SPEC, True, IndexFormat.PLANE),
                )
            ),
        },
        results={
            "output": ForwardResult(Y, None),
            "with indices": ForwardResult(Y, INDICES),
            "three layers": (
                ForwardResult(Y, None),
                ForwardResult(3 * Y, INDICES + 1),
                ForwardResult(4 * Y, INDICES + 2),
            ),
        },
    ),
    "Backward": Samples(
        calls={
            "from indices": BackwardCall(Y, SPEC, X.shape, INDICES, None, IndexFormat.WINDOW),
            "from input": BackwardCall(Y, SPEC, None, None, X),
        },
        results={"gradient": X},
    ),
}


class Message(NamedTuple):
    """One message, and how it is encoded and decoded.

    Attributes:
        field: of a stream message, the field of the message in it.
    """

    value: Any
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    type: Any
    field: str | None

    @property
    def data(self) -> bytes:
        """The bytes of the message."""
        return self.encode(self.value)


ID, TIMEOUT_US = 7, 1500  # of stream items


def _messages_of(method: Method[Any, Any]) -> Iterator[tuple[str, Message]]:
    samples, name = SAMPLES[method.name], method.name
    for what, call in samples.calls.items():
        yield (
            f"{name} request, {what}",
            Message(
                call,
                method.encode_request,
                lambda data: method.decode_request(data).call,
                method.request.type,
                None,
            ),
        )
        for suffix, timeout_us in (("", 0), (", with a timeout", TIMEOUT_US)):
            yield (
                f"{name} item, {what}{suffix}",
                Message(
                    call,
                    partial(method.encode_item, ID, timeout_us=timeout_us),
                    lambda data: method.decode_item(data).call,
                    method.item,
                    "request",
                ),
            )
    for what, result in samples.results.items():
        yield (
            f"{name} response, {what}",
            Message(
                result, method.encode_response, method.decode_response, method.response.type, None
            ),
        )
        yield (
            f"{name} reply, {what}",
            Message(
                result,
                partial(method.encode_reply, ID),
                lambda data: method.decode_reply(data)[1],
                method.reply,
                "response",
            ),
        )


MESSAGES = dict(pair for method in METHODS for pair in _messages_of(method))


class FakeRpcError(grpc.RpcError):
    """A gRPC error as a client sees it."""

    def __init__(self, code: grpc.StatusCode, text: str, details: bytes | None = None) -> None:
        self._answers = (code, text)
        self.metadata: Any = () if details is None else ((pooling_wire.DETAILS_KEY, details),)

    def code(self) -> grpc.StatusCode:
        return self._answers[0]

    def details(self) -> str:
        return self._answers[1]

    def trailing_metadata(self) -> Any:
        return self.metadata


def assert_same(a: Any, b: Any) -> None:
    """Assert that two values are equal, with arrays compared by elements and type.

    Specs are equal if their messages are: kernel 2 equals kernel (2, 2).
    """
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        np.testing.assert_array_equal(a, b, strict=True)
    elif isinstance(a, PoolSpec):
        assert encode_spec(a, 2) == encode_spec(b, 2)
    elif isinstance(a, ForwardCall | BackwardCall):
        assert a.result_specs == b.result_specs
        for name in argument_names(a):
            assert_same(getattr(a, name), getattr(b, name))
    elif dataclasses.is_dataclass(a):
        for field in dataclasses.fields(a):
            assert_same(getattr(a, field.name), getattr(b, field.name))
    elif isinstance(a, tuple):
        for item, other in zip(a, b, strict=True):
            assert_same(item, other)
    else:
        assert a == b


def argument_names(call: ForwardCall | BackwardCall) -> tuple[str, ...]:
    """Return the names of the arguments of a call."""
    if isinstance(call, ForwardCall):
        return "input", "spec", "return_indices", "index_format"
    return "output_gradient", "spec", "input_shape", "indices", "input", "index_format"


def arrays_in(value: Any) -> Iterator[np.ndarray]:
    """Yield the arrays of a decoded message."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from arrays_in(item)
    elif isinstance(value, ForwardCall | BackwardCall):
        for name in argument_names(value):
            yield from arrays_in(getattr(value, name))
    elif isinstance(value, ForwardAllCall):
        yield from arrays_in(value.calls)
