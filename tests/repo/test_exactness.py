"""The corner cases in `docs/exactness.md` agree with `tests/support/golden.py`."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.support.golden import GOLDEN, Golden

DOCUMENT = Path(__file__).parents[2] / "docs/exactness.md"
LIBRARIES = {"PyTorch": "PyTorch", "ONNX Runtime": "ONNX Runtime"}
LIBRARIES |= {"JAX / Flax": "JAX", "TensorFlow": "TensorFlow"}


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def rows() -> list[dict[str, str]]:
    """Return the rows of the table of corner cases, by column."""
    lines = DOCUMENT.read_text().splitlines()
    (first,) = (number for number, line in enumerate(lines) if line.startswith("| no. | case |"))
    numbered = [line for line in lines[first:] if re.match(r"\| \d+ \|", line)]
    return [dict(zip(cells_of(lines[first]), cells_of(line), strict=True)) for line in numbered]


CASES = [
    pytest.param(case, row, id=f"{case.number} {row['case']}")
    for case, row in zip(GOLDEN, rows(), strict=True)
]


def text(values: object) -> str:
    numbers = np.ravel(values).tolist()
    return " ".join(str(each) if isinstance(each, int) else f"{each:.5g}" for each in numbers)


def answers_of(case: Golden) -> dict[str, str]:
    """Return the expected results of a case as the document writes them."""
    if case.outputs == "error" or case.foreign:
        return {}
    gradient = {"dx": case.dx, "x": case.dx}  # "x" is the result of unpooling
    answers = {"y": case.y, "index": case.cells, "plane": case.cells, "tensor": case.positions}
    answers |= gradient | {"outputs": case.outputs}
    if np.size(case.x) == 0:
        answers = {name: value.shape for name, value in answers.items() if value is not None}
    return {name: text(value) for name, value in answers.items() if value is not None}


def note_of(row: dict[str, str]) -> str:
    """Return the results of all libraries in one line, equal ones together."""
    by_answer: dict[str, list[str]] = {}
    for head, name in LIBRARIES.items():
        cell = row[head]
        if cell == "—":
            continue
        others = ", ".join(re.findall(r"\*\*(.+?)\*\*", cell)) or "same"
        by_answer.setdefault(cell if row["contract"] == "not supported" else others, []).append(
            name
        )
    return "; ".join(f"{', '.join(names)}: {answer}" for answer, names in by_answer.items())


@pytest.mark.parametrize(("case", "row"), CASES)
def test_expected_results_match_the_document(case: Golden, row: dict[str, str]) -> None:
    assert row["no."] == str(case.number)
    assert (row["contract"] == "error") == (case.outputs == "error")
    assert (row["contract"] == "not supported") == bool(case.foreign)
    answers = answers_of(case)
    parts = row["contract"].split("; ") if answers else []
    for name, _, said in (part.partition(" ") for part in parts):
        assert answers[name] == said, name


@pytest.mark.parametrize(("case", "row"), CASES)
def test_notes_on_other_libraries_match_the_document(case: Golden, row: dict[str, str]) -> None:
    measured, _, _ = case.others.partition(". ")
    assert measured == note_of(row)


@pytest.mark.parametrize(("case", "row"), CASES)
def test_the_engine_agrees_with_the_contract(case: Golden, row: dict[str, str]) -> None:
    expected = "—" if case.foreign else row["contract"]
    assert row["this engine"] == expected
