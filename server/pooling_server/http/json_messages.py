"""Requests and replies in protobuf's JSON form, converted to and from their bytes."""

from __future__ import annotations

import re

from google.protobuf import json_format

import pooling_wire
from pooling_engine import InvalidSpecError
from pooling_server.serving.call_processor import PreparedCall
from pooling_server.serving.rpcs import Work
from pooling_server.serving.unary_calls import Prepare
from pooling_wire.shared_memory import Regions

_MOST_CHARACTERS = 400  # of an error: it may repeat what the client sent
_PATH = re.compile(r" at \w+\.([\w.\[\]]*[\w\]])")
_UNKNOWN = re.compile(r'no field named "([^"]*)" at "\w+\.?([^"]*)"')
_PYTHON = re.compile(r"\bobject (is|of|has)\b|concatenate|SystemError|invalid literal")
_PREFIX = re.compile(r"Failed to parse (\w+) field: ")


def with_json(name: str, prepare: Prepare) -> Prepare:
    """Return a decoder of JSON requests, whose replies are JSON too.

    Args:
        name: name of the method.
        prepare: decoder of the requests of the method as bytes.
    """

    def prepare_json(work: Work, message: bytes, regions: Regions) -> PreparedCall:
        prepared = prepare(work, request_bytes(name, message), regions)

        def answer(regions: Regions) -> bytes:
            return reply_json(name, prepared.answer(regions))

        return PreparedCall(prepared.predicted_us, answer)

    return prepare_json


def request_bytes(name: str, text: bytes) -> bytes:
    """Return the bytes of the request of a method.

    Args:
        name: name of the method.
        text: the request in JSON.

    Raises:
        InvalidSpecError: the text is no JSON, or not of this request.
    """
    message = pooling_wire.message_class(f"{name}Request")()
    try:
        if not text.lstrip().startswith(b"{"):
            raise ValueError("it must be an object in braces")
        json_format.Parse(text, message)
    except (json_format.ParseError, ValueError, RecursionError) as error:
        raise _unparsable(name, error) from None
    data: bytes = message.SerializeToString()
    return data


def reply_json(name: str, reply: bytes) -> bytes:
    """Return the JSON of the reply of a method, which is given as bytes."""
    message = pooling_wire.message_class(f"{name}Response").FromString(reply)
    return json_format.MessageToJson(message, indent=None).encode()


def _unparsable(name: str, error: Exception) -> InvalidSpecError:
    """Return the error of a request that cannot be parsed, with the path as far as it is known."""
    text = " ".join(str(error).partition("\n")[0].split())[:_MOST_CHARACTERS].rstrip(".")
    found, unknown = _PATH.search(text), _UNKNOWN.search(text)
    path = found[1] if found else ".".join(_PREFIX.findall(text))
    if unknown is not None:
        path = f"{unknown[2]}.{unknown[1]}".lstrip(".")
    reason = _PATH.sub("", _PREFIX.sub("", text))
    if _PYTHON.search(reason):  # the parser's own error: it expected another type
        reason = "a value is not of the type of its field"
    where = f" at {path}" if path else ""
    return InvalidSpecError(
        f"the JSON of the {name}Request cannot be parsed{where}: {reason}",
        field=pooling_wire.RequestPath(path),
    )
