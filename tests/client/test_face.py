"""`pooling_client` exports everything that its users need."""

from __future__ import annotations

import inspect
import re
import typing
from enum import Enum
from typing import Any

import pytest

import pooling_client
import pooling_engine
from pooling_client import PoolSpec

OURS = re.compile(r"pooling_\w+\.[\w.]+")


def exported() -> set[Any]:
    return {getattr(pooling_client, name) for name in pooling_client.__all__}


def test_names_are_sorted() -> None:
    assert pooling_client.__all__ == sorted(pooling_client.__all__)


def test_every_error_is_exported() -> None:
    errors = [name for name in pooling_engine.__all__ if name.endswith("Error")]
    assert len(errors) == 12
    assert set(errors) <= set(pooling_client.__all__)


def test_every_enum_of_a_spec_is_exported() -> None:
    specs = (PoolSpec("max", 2, padding="same_upper"), PoolSpec("min", 3), PoolSpec("sum", 2))
    values = [value for spec in specs for value in vars(spec).values() if isinstance(value, Enum)]
    assert {type(value).__name__ for value in values} >= {"Mode", "NamedPadding", "TiePolicy"}
    assert {type(value) for value in values} <= exported()


@pytest.mark.parametrize(
    "class_", [pooling_client.PoolingClient, pooling_client.AsyncPoolingClient]
)
def test_every_type_of_a_signature_is_exported(class_: type) -> None:
    names = {f"{it.__module__}.{it.__qualname__}" for it in exported()}
    found = set()
    for _, method in inspect.getmembers(class_, inspect.isfunction):
        if not method.__name__.startswith("_"):
            found |= set(OURS.findall(str(typing.get_type_hints(method))))
    assert len(found) >= 5
    assert found <= names
