"""Imports between the modules of the packages: no cycles, deferred imports included."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "pooling_engine": "",
    "pooling_wire": "wire",
    "pooling_server": "server",
    "pooling_client": "client",
    "pooling_cli": "client",
    "pooling_loadtest": "client",
}


def sources() -> dict[str, str]:
    """Return the source of every module by its dotted name."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in (ROOT / folder / package).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = path.read_text()
    return found


def imports_of(source: str, modules: set[str]) -> set[str]:
    """Return the modules that a source imports anywhere, also in functions and for types only."""
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                imported.add(full if full in modules else str(node.module))
    return imported & modules


def check(modules: dict[str, str]) -> None:
    graph = {name: imports_of(source, set(modules)) for name, source in modules.items()}
    TopologicalSorter(graph).prepare()


def test_no_module_imports_itself_through_others() -> None:
    modules = sources()
    assert len(modules) > 100
    check(modules)


@pytest.mark.parametrize(
    "source",
    [
        "from a import f",
        "import a",
        "def g():\n    from a import f",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a import f",
    ],
)
def test_that_test_can_fail(source: str) -> None:
    with pytest.raises(CycleError):
        check({"a": "from b import g", "b": source})
