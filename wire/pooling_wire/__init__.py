"""Requests, replies and errors of `pooling.v1`, encoded from and decoded to engine types.

Server and clients import from this module, from `pooling_wire.shared_memory` and from
`pooling_wire.keepalive` only.
"""

from pooling_wire.errors import (
    DETAILS_KEY,
    PUSHBACK_KEY,
    RequestPath,
    Status,
    decode_error,
    encode_error,
    error_details,
)
from pooling_wire.foreign import HANDSHAKE, PINGS, UNRESOLVED
from pooling_wire.messages.plans import decode_plan_request, encode_plan_response
from pooling_wire.messages.server_info import (
    BackendInfo,
    Limits,
    ServerInfo,
    decode_server_info,
    encode_server_info,
)
from pooling_wire.methods import (
    BACKWARD,
    FORWARD,
    GET_PLAN,
    GET_SERVER_INFO,
    METHODS,
    PLAIN_METHODS,
    SERVICE_NAME,
    Method,
    encode_forward_request,
    message_class,
    path_of,
)
from pooling_wire.payloads.parsing import split_fields
from pooling_wire.payloads.tensors import check_empty, field_start

__all__ = [
    "BACKWARD",
    "DETAILS_KEY",
    "FORWARD",
    "GET_PLAN",
    "GET_SERVER_INFO",
    "HANDSHAKE",
    "METHODS",
    "PINGS",
    "PLAIN_METHODS",
    "PUSHBACK_KEY",
    "SERVICE_NAME",
    "UNRESOLVED",
    "BackendInfo",
    "Limits",
    "Method",
    "RequestPath",
    "ServerInfo",
    "Status",
    "check_empty",
    "decode_error",
    "decode_plan_request",
    "decode_server_info",
    "encode_error",
    "encode_forward_request",
    "encode_plan_response",
    "encode_server_info",
    "error_details",
    "field_start",
    "message_class",
    "path_of",
    "split_fields",
]
