"""Fields of requests in JSON, each checked for its type.

Errors name the field as the client wrote it, such as "inputs[0].shape".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pooling_engine import InvalidSpecError, InvalidTensorError, PoolingError
from pooling_server.oip.inference import Parameter


def parsed(text: bytes) -> Any:
    """Return a request of JSON as Python values.

    Raises:
        InvalidTensorError: it is not valid JSON, or has NaN, an infinity or a key twice.
    """
    try:
        return json.loads(text, parse_constant=_constant, object_pairs_hook=_record)
    except (ValueError, RecursionError) as error:
        if isinstance(error, PoolingError):
            raise
        raise InvalidTensorError(f"the request is not valid JSON: {error}") from None


def _record(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for key, value in pairs:
        if key in record:
            raise InvalidTensorError(f"the request has {key!r} twice in one object", field=key)
        record[key] = value
    return record


def _constant(name: str) -> Any:
    raise InvalidTensorError(
        f"the request has {name}, which JSON does not have; send such elements as binary data",
        field="inputs.data",
    )


def object_of(value: Any, name: str, known: tuple[str, ...], field: str) -> dict[str, Any]:
    """Return a value that must be an object with known fields.

    Args:
        value: the value.
        name: its name in messages.
        known: names of the fields it may have.
        field: its place in the request.

    Raises:
        InvalidTensorError: it is no object, or has an unknown field.
    """
    if not isinstance(value, dict):
        raise InvalidTensorError(f"{name} must be an object in braces", field=field)
    for key in value:
        if key not in known:
            raise InvalidTensorError(
                f"{name} has no field {key!r}; it has {', '.join(known)}",
                field=f"{field}.{key}".lstrip("."),
            )
    return value


def list_of(value: Any, field: str) -> list[Any]:
    """Return a value that must be a list.

    Raises:
        InvalidTensorError: it is no list.
    """
    if not isinstance(value, list):
        raise InvalidTensorError(f"{field} must be a list in brackets", field=field)
    return value


def text_of(record: Mapping[str, Any], key: str, field: str) -> str:
    """Return the text in a field of a record.

    Raises:
        InvalidTensorError: the field is missing or no text.
    """
    value = record.get(key)
    if not isinstance(value, str):
        raise InvalidTensorError(
            f"{field}.{key} is {value!r:.60}; it must be text", field=f"{field}.{key}"
        )
    return value


def flag_of(value: Any, field: str) -> bool:
    """Return a value that must be true or false.

    Raises:
        InvalidSpecError: it is neither.
    """
    if not isinstance(value, bool):
        raise InvalidSpecError(f"{field} is {value!r:.60}; it must be true or false", field=field)
    return value


def parameters_of(record: Mapping[str, Any], field: str) -> dict[str, Parameter]:
    """Return the parameters of a record; none if it has none.

    Raises:
        InvalidSpecError: they are no object of bools, numbers and texts.
    """
    parameters = record.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidSpecError(f"{field} must be an object in braces", field=field)
    for name, value in parameters.items():
        if not isinstance(value, (bool, int, float, str)):
            raise InvalidSpecError(
                f"{field}.{name} is {value!r:.60}; it must be a bool, a number or text, "
                'such as "3,2"',
                field=f"{field}.{name}",
            )
    return dict(parameters)
