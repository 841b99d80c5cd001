"""Check of JSON against the types of a dataclass or TypedDict."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from pooling_loadtest.errors import ResultsError

_NAMES: dict[Any, str] = {
    str: "a text",
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    type(None): "null",
    list: "a list",
    dict: "an object",
}


def typed(kind: Any, value: Any, name: str) -> Any:
    """Return a value of JSON as a type describes it.

    Args:
        kind: a dataclass, a TypedDict, a list, dict, Literal or union of such, or a plain type.
        value: the value, as `json.loads` returns it.
        name: name of the value in errors.

    Returns:
        The value; dataclasses are made from objects, and unknown keys are left out of them.

    Raises:
        ResultsError: the value has another type, or a key is missing.
    """
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin is typing.Literal:
        if value not in parts:
            raise _error(name, value, " or ".join(map(repr, parts)))
        return value
    if origin is types.UnionType:
        if value is None and type(None) in parts:
            return None
        return typed(next(part for part in parts if part is not type(None)), value, name)
    if origin in (list, Sequence):
        items = _plain(list, value, name)
        return [typed(parts[0], item, f"{name}[{n}]") for n, item in enumerate(items)]
    if origin is dict:
        entries = _plain(dict, value, name).items()
        return {key: typed(parts[1], entry, f"{name}.{key}") for key, entry in entries}
    if dataclasses.is_dataclass(kind) or typing.is_typeddict(kind):
        return _record(kind, _plain(dict, value, name), name)
    return _plain(kind, value, name)


def _record(kind: Any, value: Mapping[str, Any], name: str) -> Any:
    hints = typing.get_type_hints(kind)
    if typing.is_typeddict(kind):
        required = kind.__required_keys__
    else:
        missing = (dataclasses.MISSING, dataclasses.MISSING)
        fields = dataclasses.fields(kind)
        required = {f.name for f in fields if (f.default, f.default_factory) == missing}
    for key in sorted(required - set(value)):
        raise ResultsError(f"key {_path(name, key)!r} is missing")
    found = {
        key: typed(hint, value[key], _path(name, key))
        for key, hint in hints.items()
        if key in value
    }
    return dict(value) | found if typing.is_typeddict(kind) else kind(**found)


def _plain(kind: type, value: Any, name: str) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and is_number and math.isfinite(value):
        return value
    if type(value) is not kind or kind is float:
        raise _error(name, value, _NAMES[kind])
    return value


def _path(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _error(name: str, value: Any, needed: str) -> ResultsError:
    given = f"of type {type(value).__name__}" if isinstance(value, list | dict) else repr(value)
    return ResultsError(f"{name} is {given[:80]}; it must be {needed}")
