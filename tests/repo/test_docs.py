"""Documents: their code runs, their commands, links and files exist, tables follow the results."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import pooling_cli.main
from benchmarks.decisions import polling_thread_0013, round_trips_0023
from benchmarks.engine import report as engine_report
from benchmarks.engine.summary import summary_table
from benchmarks.gpu import report as gpu_report
from benchmarks.torch.__main__ import markdown as torch_tables
from benchmarks.wire import goals as wire_goals
from benchmarks.wire import load_report
from benchmarks.wire import report as wire_report
from pooling_engine import Mode
from pooling_server import PoolingServer, ServerConfig
from pooling_server.config import flag, markdown_table

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
READMES = sorted(
    path
    for folder in ("benchmarks", "client", "examples", "pooling_engine")
    for path in ROOT.glob(f"{folder}/**/README.md")
    if "node_modules" not in path.parts
)
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


def test_the_code_in_the_readme_runs(server: PoolingServer, tmp_path: Path) -> None:
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
        assert command in pooling_cli.main.cli.commands, command


@pytest.mark.parametrize("path", [*DOCUMENTS, *READMES], ids=lambda path: path.name)
def test_links_exist(path: Path) -> None:
    for link, _, anchor in re.findall(r"\]\(([^)#\s]*)(#([^)\s]+))?\)", path.read_text()):
        if not link.startswith("http"):
            target = path.parent / link if link else path
            assert target.exists(), link
            assert not anchor or anchor in anchors_of(target), f"{link}#{anchor}"


def anchors_of(path: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a document."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    words = (re.sub(r"[^\w\- ]", "", line.lower()) for line in re.findall(r"^#+ (.+)$", text, re.M))
    return {each.replace(" ", "-") for each in words}


@pytest.mark.parametrize("path", [*DOCUMENTS, *READMES], ids=lambda path: path.name)
def test_flags_of_commands_exist(path: Path) -> None:
    text = path.read_text()
    code = "\n".join(re.findall(r"```\w*\n(.*?)```", text, re.DOTALL))
    lines = re.findall(r"^(?:\$ )?pooling ([a-z].*)$", code, re.M)
    for line in lines + re.findall(r"`pooling ([a-z][^`]*)`", text):
        words = line.partition("#")[0].split()
        assert {word for word in words if word.startswith("--")} <= flags_of(words), line


def flags_of(words: list[str]) -> set[str]:
    """Return the flags of the command of the program `pooling` that a line calls."""
    if words[0] == "serve":
        flags = {flag(field.name) for field in dataclasses.fields(ServerConfig)}
        return flags | {each.replace("--", "--no-", 1) for each in flags} | {"--help"}
    command: click.Command = pooling_cli.main.cli.commands[words[0]]
    if isinstance(command, click.Group):
        command = command.commands.get("".join(words[1:2]), command.commands["run"])
    names = [[*each.opts, *each.secondary_opts] for each in command.params]
    return {"--help", *itertools.chain.from_iterable(names)}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_documents_name_exist(path: Path) -> None:
    for name in re.findall(r"`((?:[\w-]+/)+[\w.-]+\.(?:py|proto|md|txt|sh))`", path.read_text()):
        assert (ROOT / name).exists(), name


def test_the_option_table_matches_the_configuration() -> None:
    assert markdown_table() in (ROOT / "docs/configuration.md").read_text()


def test_the_readme_names_every_mode() -> None:
    table = re.findall(r"^\| `(\w+)` \|", (ROOT / "README.md").read_text(), re.M)
    assert table == list(Mode)


def test_the_readme_quotes_the_summary_of_the_results() -> None:
    result = json.loads((ROOT / "benchmarks/results/engine-cpu.json").read_text())
    assert summary_table(result) in (ROOT / "README.md").read_text()
    assert engine_report.readme_table(result) in (ROOT / "benchmarks/README.md").read_text()


def test_the_table_of_results_follows_the_json() -> None:
    results = ROOT / "benchmarks/results"
    assert (results / "engine-cpu.md").read_text() == engine_report.markdown(
        results / "engine-cpu.json"
    )


def test_the_tables_of_the_wire_follow_its_json() -> None:
    source = ROOT / "benchmarks/results/wire.json"
    assert source.with_suffix(".md").read_text() == wire_report.markdown(source)
    results = wire_goals.read()
    goals = source.with_name("wire-goals.md").read_text()
    assert goals == wire_goals.markdown(results)
    assert wire_goals.goals_table(results) in (ROOT / "benchmarks/README.md").read_text()
    assert wire_goals.sentence(results) in (ROOT / "README.md").read_text()


def test_the_tables_of_pytorch_follow_their_json() -> None:
    result = json.loads((ROOT / "benchmarks/results/torch.json").read_text())
    assert torch_tables(result["rows"]) in (ROOT / "benchmarks/README.md").read_text()


def test_tables_of_gpu_results_follow_their_json() -> None:
    found = set((ROOT / "benchmarks/results").glob("gpu-*.json"))
    found -= set((ROOT / "benchmarks/results").glob("gpu-check-*.json"))
    for path in found:
        result = json.loads(path.read_text())
        assert path.with_suffix(".md").read_text() == gpu_report.markdown(result, path.stem)


def test_the_decision_on_the_server_quotes_its_results() -> None:
    results = json.loads((ROOT / "benchmarks/results/server-kind.json").read_text())
    decision = (ROOT / "docs/adr/0001-threaded-server.md").read_text()
    for row in results["rows"]:
        threaded, asyncio = row["threaded"], row["asyncio"]
        ratio = row["asyncio_over_threaded"]
        assert (
            f"| {row['payload']} | {row['concurrency']} "
            f"| {threaded['calls_per_s']['median']:.0f} | {asyncio['calls_per_s']['median']:.0f} "
            f"| {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f}) "
            f"| {threaded['p99_ms']['median']:.1f} | {asyncio['p99_ms']['median']:.1f} |"
        ) in decision


def test_the_tables_of_the_server_under_load_follow_their_json() -> None:
    path = ROOT / "benchmarks/results/load.json"
    assert path.with_suffix(".md").read_text() == load_report.markdown(path)


def test_the_decision_on_the_polling_thread_quotes_its_results() -> None:
    results = json.loads((ROOT / "benchmarks/results/polling-thread.json").read_text())
    decision = (ROOT / "docs/adr/0013-polling-thread.md").read_text()
    assert polling_thread_0013.rate_table(results) in decision
    assert polling_thread_0013.beside_table(results) in decision


def test_the_decision_on_round_trips_quotes_its_results() -> None:
    results = json.loads((ROOT / "benchmarks/results/round-trips.json").read_text())
    decision = (ROOT / "docs/adr/0023-fewer-round-trips.md").read_text()
    assert round_trips_0023.markdown(results["rows"]) in decision


def test_the_decision_on_workers_quotes_its_results() -> None:
    results = json.loads((ROOT / "benchmarks/results/workers.json").read_text())
    decision = (ROOT / "docs/adr/0007-worker-processes.md").read_text()
    for row in results["rows"]:
        rate = row["calls_per_s"]
        figures = f"{rate['median']:.0f} ({rate['min']:.0f} to {rate['max']:.0f})"
        assert f"| {row['workers']} | {figures} |" in decision
    ratio = results["two_over_one"]
    assert f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})" in decision
