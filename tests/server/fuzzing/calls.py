"""Whole calls in this process, without sockets: decode, check, plan, compute, encode.

A case is a byte that selects a `Kind`, and the bytes of its request. The limits are small, so that
no valid case takes long.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pooling_wire
from pooling_engine import PoolingError
from pooling_server.config import ServerConfig
from pooling_server.http.json_messages import with_json
from pooling_server.oip.datatypes import DTYPES
from pooling_server.oip.json_messages import RestExchange
from pooling_server.oip.messages import message_class
from pooling_server.oip.models import MODELS
from pooling_server.oip.service import InferenceService
from pooling_server.serving.byte_budget import ByteBudget
from pooling_server.serving.call_processor import CallProcessor, Item
from pooling_server.serving.executor import Executor
from pooling_server.serving.limits import check_message_size
from pooling_server.serving.rpcs import Rpc, Rpcs, Work
from pooling_server.serving.servicer import PoolingServicer
from pooling_server.serving.unary_calls import Prepare
from pooling_server.sockets.shared_memory import SharedMemory
from pooling_wire import METHODS, field_start
from pooling_wire.shared_memory import NO_REGIONS

MOST_BYTES = 1024  # of a case
CONFIG = ServerConfig(
    backend="numpy",
    max_message_bytes=1 << 14,
    max_tensor_bytes=1 << 13,
    max_taps=1 << 13,
    max_in_flight_bytes=1 << 20,
    arena_bytes=1 << 18,
    shared_memory_bytes=0,
)
REJECTIONS = {"INVALID_SPEC", "INVALID_TENSOR", "UNSUPPORTED", "TENSOR_TOO_LARGE"}
_ABOUT_MODELS = (
    *("ModelReady", "ServerMetadata", "ModelMetadata", "ModelConfig", "ModelStatistics"),
    "RepositoryIndex",
)
_ID, _REQUEST, _RESPONSE = b"\x08\x05", 15, 15  # an id of 5, and the fields of an item and a reply


class Kind(NamedTuple):
    """A kind of request.

    Attributes:
        name: its name.
        message: generated class of the request; None if there is none.
        is_json: true for the JSON form of the message.
        answer: returns the reply to a request; fails if it is neither a reply nor a rejection.
    """

    name: str
    message: Any
    is_json: bool
    answer: Callable[[bytes], bytes | PoolingError]


class _Caller:
    """Client of all calls."""

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return ()

    def peer(self) -> str:
        return "fuzzer"


CALLS = CallProcessor(CONFIG)
BUDGET = ByteBudget(CONFIG.max_in_flight_bytes)
_RPCS = Rpcs(None, BUDGET, None)
_SERVICER = PoolingServicer(
    CONFIG, Executor(1, 1), CALLS, "fuzzed", SharedMemory([], 0, None), _RPCS
)
_INFERENCE = InferenceService(CALLS, "fuzzed", lambda: True)


def check(data: bytes) -> None:
    """Run one case, and one of four twice: then, caches of decoded messages are filled.

    Raises:
        AssertionError: an answer is neither a valid reply nor a documented rejection, the two
            answers differ, or the case left memory reserved.
    """
    if not data:
        return
    kind, request = KINDS[data[0] % len(KINDS)], data[1:]
    answer = kind.answer(request)
    if len(data) % 4 == 0:
        assert _text(kind.answer(request)) == _text(answer), "the second answer differs"
    assert BUDGET.used_bytes == 0, "bytes stay reserved"
    assert CALLS.arena.idle_bytes <= CONFIG.arena_bytes


def _text(answer: bytes | PoolingError) -> object:
    return (answer.reason, str(answer)) if isinstance(answer, PoolingError) else answer


def _answer(
    name: str, prepare: Prepare, check_reply: Callable[[bytes], object], request: bytes
) -> bytes | PoolingError:
    """Answer a unary call, as the handlers of all protocols do."""
    rpc = Rpc(_RPCS, name, _Caller())
    work = rpc.receive(len(request))
    try:
        work.reserve(len(request))
        check_message_size(request, CONFIG)
        reply = prepare(work, request, NO_REGIONS).answer(NO_REGIONS)
        work.succeed(len(reply))
        rpc.succeed()
    except Exception as error:
        rejection, trailers = _SERVICER.failed(error, rpc, work)
        _check_rejection(rejection)
        assert len(pooling_wire.encode_error(rejection).details) < 7000, "too long for trailers"
        assert trailers
        return rejection
    finally:
        work.release()
    check_reply(reply)
    return reply


def _check_rejection(error: PoolingError) -> None:
    assert error.reason in REJECTIONS, error.reason
    assert str(error)
    assert len(str(error).splitlines()) == 1, "more than one line"


def _answer_item(
    name: str, prepare: Callable[[Work, Item], Any], check_reply: Callable[[bytes], object]
) -> Callable[[bytes], bytes]:
    """Return a function that answers an item of a stream; its timeout never passes."""

    def answer(request: bytes) -> bytes:
        work = Rpc(_RPCS, name, _Caller()).receive(len(request))
        reply: bytes = prepare(work, Item(request, time.monotonic() + 1e12)).answer(NO_REGIONS)
        check_reply(reply)
        return reply

    return answer


def _tensor_call(method: Any, request: bytes) -> bytes | PoolingError:
    """Answer a unary call, and compare it with the answer to a stream item of the same request."""
    prepare = _SERVICER.prepares[method.name]
    reply = _answer(method.name, prepare, method.decode_response, request)
    start = field_start(_REQUEST, len(request))
    item_reply = _items(method)(b"".join([_ID, start, request]))
    if isinstance(reply, PoolingError):
        _, error = method.decode_reply(item_reply)
        assert isinstance(error, PoolingError)
        # An item with a place in shared memory is rejected for that, whatever else is wrong.
        assert error.reason in (reply.reason, "UNSUPPORTED")
    else:
        assert item_reply == b"".join([_ID, field_start(_RESPONSE, len(reply)), reply])
    return reply


def _items(method: Any) -> Callable[[bytes], bytes]:
    prepare = partial(CALLS.prepare_item, method)
    return _answer_item(method.stream_name, prepare, partial(_check_item_reply, method))


def _check_item_reply(method: Any, reply: bytes) -> None:
    _, result = method.decode_reply(reply)
    if isinstance(result, PoolingError):
        _check_rejection(result)


def _check_inference(reply: bytes) -> None:
    _check_outputs(message_class("ModelInferResponse").FromString(reply))


def _check_outputs(message: Any) -> None:
    assert len(message.outputs) == len(message.raw_output_contents) > 0
    for output, data in zip(message.outputs, message.raw_output_contents, strict=True):
        assert len(data) == math.prod(output.shape) * DTYPES[output.datatype].itemsize


def _check_inference_item(reply: bytes) -> None:
    message = message_class("ModelStreamInferResponse").FromString(reply)
    if message.error_message:
        assert "internal error" not in message.error_message
        assert "ran out of host memory" not in message.error_message
    else:
        _check_outputs(message.infer_response)


def _rest(request: bytes) -> bytes | PoolingError:
    """Answer a body over REST; the first bytes select the model, and the size of the JSON."""
    head, body = request[:3].ljust(3, b"\0"), request[3:]
    model = tuple(MODELS)[head[0] % len(MODELS)]
    size = int.from_bytes(head[1:], "little") or None
    exchange = RestExchange(model, "", size, _INFERENCE.statistics)

    def check_reply(reply: bytes) -> None:
        record = json.loads(reply[: exchange.reply_json_size])
        assert record["model_name"] == model
        assert record["outputs"]

    prepare = partial(_INFERENCE.prepare_rest, exchange)
    return _answer("infer", prepare, check_reply, body)


def _kinds() -> tuple[Kind, ...]:
    kinds, pb = [], pooling_wire.message_class
    for method in METHODS:
        request = pb(f"{method.name}Request")
        kinds.append(Kind(method.name, request, False, partial(_tensor_call, method)))
        kinds.append(Kind(method.stream_name, method.item, False, _items(method)))
    for name, prepare in _SERVICER.prepares.items():
        request, reply = pb(f"{name}Request"), pb(f"{name}Response")
        in_json = partial(_answer, name, with_json(name, prepare), json.loads)
        kinds.append(Kind(f"{name} in JSON", request, True, in_json))
        if "Get" in name:
            plain = partial(_answer, name, prepare, reply.FromString)
            kinds.append(Kind(name, request, False, plain))
    for name in _ABOUT_MODELS:
        request, reply = message_class(f"{name}Request"), message_class(f"{name}Response")
        plain = partial(_answer, name, _INFERENCE.prepares[name], reply.FromString)
        kinds.append(Kind(name, request, False, plain))
    infer = message_class("ModelInferRequest")
    unary = partial(_answer, "ModelInfer", _INFERENCE.prepare, _check_inference)
    kinds.append(Kind("ModelInfer", infer, False, unary))
    items = _answer_item("ModelStreamInfer", _INFERENCE.prepare_item, _check_inference_item)
    kinds.append(Kind("ModelStreamInfer", infer, False, items))
    kinds.append(Kind("infer", None, True, _rest))
    return tuple(kinds)


KINDS = _kinds()
NUMBERS = {kind.name: number for number, kind in enumerate(KINDS)}
