"""The wire: requests, replies and errors of `pooling.v1`, to and from the engine's terms."""

from pooling_wire.errors import DETAILS_KEY, Status, decode_error, encode_error
from pooling_wire.messages.calls import BackwardCall, ForwardCall
from pooling_wire.messages.decoding import (
    decode_backward_request,
    decode_backward_response,
    decode_forward_request,
    decode_forward_response,
)
from pooling_wire.messages.encoding import (
    encode_backward_request,
    encode_backward_response,
    encode_forward_request,
    encode_forward_response,
)
from pooling_wire.messages.plans import decode_plan_request, encode_plan_response
from pooling_wire.messages.server_info import (
    BackendInfo,
    Limits,
    ServerInfo,
    decode_server_info,
    encode_server_info,
)
from pooling_wire.messages.stream_items import (
    decode_backward_item,
    decode_backward_item_reply,
    decode_forward_item,
    decode_forward_item_reply,
    encode_backward_item,
    encode_backward_item_reply,
    encode_forward_item,
    encode_forward_item_reply,
)
from pooling_wire.shared_memory.places import Place

SERVICE_NAME = "pooling.v1.PoolingService"

__all__ = [
    "DETAILS_KEY",
    "SERVICE_NAME",
    "BackendInfo",
    "BackwardCall",
    "ForwardCall",
    "Limits",
    "Place",
    "ServerInfo",
    "Status",
    "decode_backward_item",
    "decode_backward_item_reply",
    "decode_backward_request",
    "decode_backward_response",
    "decode_error",
    "decode_forward_item",
    "decode_forward_item_reply",
    "decode_forward_request",
    "decode_forward_response",
    "decode_plan_request",
    "decode_server_info",
    "encode_backward_item",
    "encode_backward_item_reply",
    "encode_backward_request",
    "encode_backward_response",
    "encode_error",
    "encode_forward_item",
    "encode_forward_item_reply",
    "encode_forward_request",
    "encode_forward_response",
    "encode_plan_response",
    "encode_server_info",
]
