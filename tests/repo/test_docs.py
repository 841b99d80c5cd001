"""The documents say what is: their code runs, commands exist, tables follow the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import pooling_client.cli
from pooling_engine import Mode
from pooling_server import PoolingServer
from pooling_server.config import markdown_table

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


def test_the_readmes_ten_lines_run(server: PoolingServer, tmp_path: Path) -> None:
    (code,) = PYTHON.findall((ROOT / "README.md").read_text())
    script = tmp_path / "ten_lines.py"
    script.write_text(code.replace("127.0.0.1:50051", server.address))
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "(10, 16, 6, 6) (10, 16, 14, 14)\n", done.stderr
    assert len([line for line in code.splitlines() if line]) <= 12


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_and_commands_exist(path: Path) -> None:
    text = path.read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z-]+)", text) + re.findall(r"^\$ make (\S+)", text, re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target
    for command in re.findall(r"`(?:\.venv/bin/)?pooling ([a-z]+)", text):
        assert command in pooling_client.cli.cli.commands, command


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if not link.startswith("http"):
            assert (path.parent / link).exists(), link


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_documents_name_exist(path: Path) -> None:
    for name in re.findall(r"`((?:[\w-]+/)+[\w.-]+\.(?:py|proto|md|txt|sh))`", path.read_text()):
        assert (ROOT / name).exists(), name


def test_the_table_of_options_follows_the_code() -> None:
    assert markdown_table() in (ROOT / "docs/configuration.md").read_text()


def test_the_readme_names_every_mode() -> None:
    table = re.findall(r"^\| `(\w+)` \|", (ROOT / "README.md").read_text(), re.M)
    assert table == list(Mode)
