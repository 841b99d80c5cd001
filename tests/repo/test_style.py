"""Text rules of `docs/style.md` that a program can check."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
RIDDLE = re.compile(r"(What|Who|Whoever|Whether|Where|Which|How|That|One that)\b")
LONGEST_LINE = 120


def tracked(*patterns: str) -> list[Path]:
    """Return the files under version control that match one of the patterns."""
    done = subprocess.run(
        ["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in done.stdout.splitlines() if (ROOT / name).exists()]


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the first line of every docstring of a Python file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text.splitlines()[0]


def test_docstrings_name_the_thing() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} {text}"
        for path in tracked("*.py")
        if "_pb2" not in path.name
        for line, text in docstrings(path)
        if RIDDLE.match(text)
    ]
    assert not found, "\n".join(found)


def test_markdown_lines_are_short() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number} has {len(line)} characters"
        for path in tracked("*.md")
        if "results" not in path.parts
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if len(line) > LONGEST_LINE
        and not line.lstrip().startswith(("|", "!", "["))
        and "](" not in line
    ]
    assert not found, "\n".join(found)
