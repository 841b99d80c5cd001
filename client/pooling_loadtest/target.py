"""The server under test: its channels, its senders, and a first call of each kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np

from pooling_client import PoolingClient
from pooling_engine import PoolingError
from pooling_loadtest.errors import TargetError
from pooling_loadtest.oip import messages, proto
from pooling_loadtest.oip.requests import InferRequest, request_of
from pooling_loadtest.payloads import Payload, payloads_of, results_in
from pooling_loadtest.recorder import OK, Check, Recorder
from pooling_loadtest.runs import Kind
from pooling_loadtest.sending.base import Sender
from pooling_loadtest.sending.many import ManySender
from pooling_loadtest.sending.rest import RestWork, rest_sender
from pooling_loadtest.sending.stream import StreamSender
from pooling_loadtest.sending.threads import shared_memory_sender
from pooling_loadtest.sending.unary import UnarySender
from pooling_loadtest.settings import KindOfCall, LoadTest, Security
from pooling_wire import decode_error

_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # channels to one address share no connection
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
_MAX_THREADS = 32  # of senders with a thread for each call
_CONNECT_S = 5.0
_INFER = f"{proto.SERVICE}ModelInfer"


class Target:
    """Connections of one generator process to the server under test.

    Args:
        test: settings of the load test.

    Attributes:
        kinds: the kinds of calls, with the sizes of their messages after `probe`.
        checks: for each kind, a function of the number of a payload and a reply.

    Raises:
        MisuseError: a kind is invalid.
    """

    def __init__(self, test: LoadTest) -> None:
        self._test = test
        self._payloads = [payloads_of(kind, test.seed) for kind in test.kinds]
        self._channels: list[grpc.Channel] = []
        if test.protocol != "oip-rest":
            for n in range(max(test.connections, len(test.targets))):
                target = test.targets[n % len(test.targets)]
                self._channels.append(_channel(target, test.security))
        self._input = test.input
        self._requests: list[list[bytes]] = []
        self.checks = [self._check(n) for n in range(len(test.kinds))]
        self.kinds: list[Kind] = []

    def server_info(self) -> dict[str, Any] | None:
        """Return version, backends and limits of the server, if it is ours."""
        if self._test.protocol != "grpc":
            return None
        try:
            with self._client(self._test.targets[0]) as client:
                info = dataclasses.asdict(client.info())
        except PoolingError:
            return None
        for backend in info["backends"]:
            backend["dtypes"] = [np.dtype(each).name for each in backend["dtypes"]]
        return info

    def probe(self) -> None:
        """Encode the requests, and send one of each kind over each connection.

        Raises:
            MisuseError: the target is no address.
            TargetError: the server is unavailable or rejects the call.
        """
        if self._test.protocol == "oip-grpc" and self._test.model and self._input is None:
            self._input = self._input_name()
        self._requests = [
            [self._encoded(n, each) for each in payloads]
            for n, payloads in enumerate(self._payloads)
        ]
        for n, kind in enumerate(self._test.kinds):
            reply = self._first_reply(n)
            sent = self._payloads[n][0].request_bytes
            is_message = kind.transport in ("unary", "stream")
            self.kinds.append(
                Kind(
                    name=kind.name,
                    direction=kind.direction,
                    transport=self._transport(kind),
                    shape=kind.shape,
                    dtype=kind.dtype,
                    spec=kind.spec,
                    weight=kind.weight,
                    sent_bytes=len(self._requests[n][0]) if is_message else sent,
                    received_bytes=len(reply) if is_message else self._payloads[n][0].reply_bytes,
                )
            )

    def senders(self, recorder: Recorder) -> list[Sender]:
        """Return a sender for each kind."""
        return [self._sender(n, recorder) for n in range(len(self._test.kinds))]

    def close(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            channel.close()

    def _client(self, target: str) -> PoolingClient:
        security = self._test.security
        return PoolingClient(
            target,
            timeout=self._test.timeout_s,
            credentials=security.credentials(),
            token=security.token,
            authority=security.server_name,
            wait_for_ready=False,
        )

    def _transport(self, kind: KindOfCall) -> str:
        return kind.transport if self._test.protocol == "grpc" else self._test.protocol

    def _sender(self, n: int, recorder: Recorder) -> Sender:
        test, kind, payloads = self._test, self._test.kinds[n], self._payloads[n]
        requests = self._requests[n]
        threads = max(1, min(_MAX_THREADS, (test.callers or test.max_in_flight) // test.processes))
        target, channels = test.targets[n % len(test.targets)], self._channels
        metadata = test.security.metadata()
        match self._transport(kind):
            case "unary":
                path = payloads[0].method.path
                return UnarySender(channels, path, requests, test.timeout_s, metadata, recorder)
            case "oip-grpc":
                return UnarySender(channels, _INFER, requests, test.timeout_s, metadata, recorder)
            case "oip-rest":
                model = self._infer_request(n, payloads[0]).model
                return rest_sender(
                    target, model, requests, threads, test.timeout_s, metadata, recorder
                )
            case "stream":
                method = payloads[0].method
                items = [method.encode_item(1, payload.call) for payload in payloads]
                return StreamSender(channels, method, items, metadata, recorder)
            case "many":
                return ManySender(self._client(target), payloads, recorder)
        return shared_memory_sender(self._client(target), payloads, threads, recorder)

    def _encoded(self, n: int, payload: Payload) -> bytes:
        if self._test.protocol == "grpc":
            return payload.method.encode_request(payload.call)
        request = self._infer_request(n, payload)
        if self._test.protocol == "oip-rest":
            return messages.encode_json(request)
        return messages.encode_grpc(request)

    def _infer_request(self, n: int, payload: Payload) -> InferRequest:
        test = self._test
        spec = test.kinds[n].spec
        return request_of(payload.call, spec, test.model, self._input, test.parameters)

    def _check(self, n: int) -> Check:
        payloads, protocol = self._payloads[n], self._test.protocol
        transport = self._test.kinds[n].transport
        decode: Callable[[Any], tuple[Any, ...]]
        if protocol == "oip-grpc":
            decode = messages.decode_grpc
        elif protocol == "oip-rest":
            decode = messages.decode_json
        elif transport == "unary":
            method = payloads[0].method
            decode = lambda reply: results_in(method.decode_response(reply))  # noqa: E731
        else:
            decode = results_in

        def check(variant: int, reply: Any) -> bool:
            try:
                found = decode(reply)
            except (PoolingError, ValueError, KeyError, TypeError):
                return False
            return payloads[variant].is_right(found, exact=self._test.model is None)

        return check

    def _first_reply(self, n: int) -> bytes:
        """Return the reply to a call of a kind, sent over each connection."""
        kind, request, test = self._test.kinds[n], self._requests[n][0], self._test
        if test.protocol == "oip-rest":
            return self._first_rest_reply(n, request)
        path = _INFER if test.protocol == "oip-grpc" else self._payloads[n][0].method.path
        reply = b""
        call: Any
        for channel in self._channels:
            try:
                call = channel.unary_unary(path)
                reply = call(request, timeout=test.timeout_s, metadata=test.security.metadata())
            except grpc.RpcError as error:
                raise TargetError(f"kind {kind.name!r}: {self._reason(error)}") from None
        return reply

    def _reason(self, error: Any) -> str:
        target = ", ".join(self._test.targets)
        if self._test.protocol == "grpc":
            return str(decode_error(error, target))
        code, details = error.code().name, error.details()
        if code == "UNIMPLEMENTED":
            return f"{target} does not speak the Open Inference Protocol over gRPC: {details}"
        return f"{target}: {code}: {details}"

    def _first_rest_reply(self, n: int, body: bytes) -> bytes:
        target = self._test.targets[0]
        outcome = RestWork(
            target,
            self._infer_request(n, self._payloads[n][0]).model,
            [body],
            self._test.timeout_s,
            self._test.security.metadata(),
        )(0)
        if outcome.status != OK:
            text = (
                "no HTTP reply"
                if outcome.reply is None
                else outcome.reply[:200].decode("utf8", "replace")
            )
            raise TargetError(f"{target} does not answer over REST: {text}")
        return bytes(outcome.reply)

    def _input_name(self) -> str:
        """Request the name of the first input of the model from the server."""
        call: Any = self._channels[0].unary_unary(f"{proto.SERVICE}ModelMetadata")
        request = proto.ModelMetadataRequest(name=self._test.model).SerializeToString()
        try:
            metadata = self._test.security.metadata()
            reply = proto.ModelMetadataResponse.FromString(
                call(request, timeout=_CONNECT_S, metadata=metadata)
            )
        except grpc.RpcError as error:
            raise TargetError(self._reason(error)) from None
        if not reply.inputs:
            raise TargetError(f"model {self._test.model!r} reports no input; name it with --input")
        return str(reply.inputs[0].name)


def _channel(target: str, security: Security) -> grpc.Channel:
    options: list[tuple[str, Any]] = list(_OPTIONS)
    if security.server_name is not None:
        options.append(("grpc.default_authority", security.server_name))
    credentials = security.credentials()
    if credentials is None:
        return grpc.insecure_channel(target, options)
    return grpc.secure_channel(target, credentials, options)
