"""Methods of `inference.GRPCInferenceService`: decoders of requests, and the methods left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pooling_engine import UnsupportedError
from pooling_server.oip import information
from pooling_server.oip.infer_messages import InferExchange
from pooling_server.oip.inference import NO_SHARED_MEMORY
from pooling_server.oip.json_messages import RestExchange
from pooling_server.oip.messages import message_class, parse
from pooling_server.oip.models import find_model
from pooling_server.oip.statistics import Statistics
from pooling_server.serving.call_processor import CallProcessor, Item, PreparedCall
from pooling_server.serving.rpcs import Work
from pooling_wire.shared_memory import Regions

INFER, STREAM_INFER = "ModelInfer", "ModelStreamInfer"
SERVER_LIVE, SERVER_READY = "ServerLive", "ServerReady"
_SHARED_MEMORY = tuple(
    f"{kind}SharedMemory{action}"
    for kind in ("System", "Cuda")
    for action in ("Status", "Register", "Unregister")
)
_LEFT_OUT = {
    "TraceSetting": "this server has no trace settings; it continues the traceparent of a call",
    "LogSettings": "the log is set with the options of the server",
    "RepositoryModelLoad": "the models are always loaded",
    "RepositoryModelUnload": "the models are always loaded",
    **dict.fromkeys(_SHARED_MEMORY, NO_SHARED_MEMORY),
}


class InferenceService:
    """Methods of the protocol.

    Args:
        calls: computes calls.
        version: version of the software.
        is_ready: returns True while health reports SERVING.

    Attributes:
        version: version of the software.
        is_ready: returns True while health reports SERVING.
        statistics: counts of the models.
        prepares: decoders of the unary methods that take a message, by name.
        empty: decoders of the methods without content, which a saturated server answers too.
    """

    def __init__(self, calls: CallProcessor, version: str, is_ready: Callable[[], bool]) -> None:
        self._calls, self.version, self.is_ready = calls, version, is_ready
        self.statistics = Statistics()
        self.prepares = {INFER: self.prepare}
        for name, answer in self._answers().items():
            self.prepares[name] = _about(name, answer)
        for name, reason in _LEFT_OUT.items():
            self.prepares[name] = _rejected(name, reason)
        self.empty = {
            SERVER_LIVE: lambda: _bytes(message_class("ServerLiveResponse")(live=True)),
            SERVER_READY: lambda: _bytes(message_class("ServerReadyResponse")(ready=is_ready())),
        }

    def prepare(self, work: Work, message: bytes, regions: Regions) -> PreparedCall:
        """Decode a ModelInferRequest, as `CallProcessor.prepare`."""
        return self._calls.prepare(InferExchange(self.statistics), work, message, regions)

    def prepare_rest(
        self, exchange: RestExchange, work: Work, message: bytes, regions: Regions
    ) -> PreparedCall:
        """Decode the body of a request over REST, as `CallProcessor.prepare`."""
        return self._calls.prepare(exchange, work, message, regions)

    def prepare_item(self, work: Work, item: Item) -> PreparedCall:
        """Decode an item of ModelStreamInfer, as `CallProcessor.prepare_item`."""
        return self._calls.prepare_item(InferExchange(self.statistics), work, item)

    def _answers(self) -> dict[str, Callable[[Any], Any]]:
        def config(request: Any) -> Any:
            model = find_model(request.name, request.version)
            return message_class("ModelConfigResponse")(config=information.model_config(model))

        return {
            "ModelReady": lambda request: information.model_ready(
                request.name, request.version, is_ready=self.is_ready()
            ),
            "ServerMetadata": lambda _: information.server_metadata(self.version),
            "ModelMetadata": lambda request: information.model_metadata(
                find_model(request.name, request.version)
            ),
            "ModelConfig": config,
            "ModelStatistics": lambda request: information.model_statistics(
                self.statistics, request.name, request.version
            ),
            "RepositoryIndex": lambda _: information.repository_index(is_ready=self.is_ready()),
        }


def _about(name: str, answer: Callable[[Any], Any]) -> Any:
    """Return a decoder of requests about models."""

    def prepare(work: Work, message: bytes, regions: Regions) -> PreparedCall:
        request = parse(f"{name}Request", message)
        return PreparedCall(0, lambda _: _bytes(answer(request)))

    return prepare


def _rejected(name: str, reason: str) -> Any:
    """Return a decoder that rejects every request of a method."""

    def prepare(work: Work, message: bytes, regions: Regions) -> PreparedCall:
        raise UnsupportedError(f"{name} is not supported: {reason}")

    return prepare


def _bytes(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data
