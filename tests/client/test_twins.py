"""Both clients have the same public methods, parameters and documentation."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from pooling_client import AsyncPoolingClient, PoolingClient

# Texts of the blocking client and of the asyncio client. Everything else must be equal.
DOCS = {
    "Blocking client": "Asyncio client",
    "Safe to share between threads.": "Safe to share between tasks and event loops.",
    "in another thread": "in another task",
}
ANNOTATIONS = {
    "Iterable[ForwardCall]": "AsyncIterable[ForwardCall] | Iterable[ForwardCall]",
    "Iterable[BackwardCall]": "AsyncIterable[BackwardCall] | Iterable[BackwardCall]",
}
RESULTS = {"Iterator[": "AsyncIterator["}
CONTEXT = {"__enter__": "__aenter__", "__exit__": "__aexit__"}
NAMES = [
    name
    for name, _ in inspect.getmembers(PoolingClient, inspect.isfunction)
    if not name.startswith("_") or name == "__init__"
]


def replaced(text: str, pairs: dict[str, str]) -> str:
    for ours, theirs in pairs.items():
        text = text.replace(ours, theirs)
    return text


def words(text: str | None) -> list[str]:
    """The words of a docstring, however its lines are wrapped."""
    assert text
    return text.split()


def twin(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    return getattr(PoolingClient, name), getattr(AsyncPoolingClient, name)


def test_both_have_the_same_methods() -> None:
    blocking, asyncio = (
        {name for name, _ in inspect.getmembers(class_, inspect.isfunction)}
        for class_ in (PoolingClient, AsyncPoolingClient)
    )
    assert {CONTEXT.get(name, name) for name in blocking} == asyncio
    assert {"forward", "backward", "forward_many", "backward_many", "empty", "info"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_both_take_the_same_parameters(name: str) -> None:
    blocking, asyncio = (inspect.signature(method).parameters for method in twin(name))
    assert list(blocking) == list(asyncio)
    for ours, theirs in zip(blocking.values(), asyncio.values(), strict=True):
        assert (ours.kind, ours.default) == (theirs.kind, theirs.default)
        assert replaced(str(ours.annotation), ANNOTATIONS) == str(theirs.annotation)


@pytest.mark.parametrize("name", NAMES)
def test_both_return_the_same(name: str) -> None:
    blocking, asyncio = (inspect.signature(method).return_annotation for method in twin(name))
    assert replaced(str(blocking), RESULTS) == str(asyncio)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "__init__"])
def test_both_document_a_method_alike(name: str) -> None:
    blocking, asyncio = (method.__doc__ for method in twin(name))
    assert words(replaced(blocking or "", DOCS)) == words(asyncio)


def test_both_classes_are_documented_alike() -> None:
    blocking, asyncio = PoolingClient.__doc__, AsyncPoolingClient.__doc__
    assert words(replaced(blocking or "", DOCS)) == words(asyncio)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_documented(name: str) -> None:
    method, _ = twin(name)
    doc = PoolingClient.__doc__ if name == "__init__" else method.__doc__
    for parameter in list(inspect.signature(method).parameters)[1:]:
        assert f"    {parameter}: " in inspect.cleandoc(doc or ""), parameter


@pytest.mark.parametrize("name", ["forward", "backward", "forward_many", "backward_many", "info"])
def test_calls_document_results_and_errors(name: str) -> None:
    for method in twin(name):
        doc = inspect.cleandoc(method.__doc__ or "")
        assert "Returns:\n" in doc or doc.startswith("Return ")
        assert "Raises:\n" in doc
