"""The engine benchmark: it runs, marks differing results, and judges goals; no time is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.engine import __main__ as bench_engine
from benchmarks.engine import goals as engine_goals
from benchmarks.engine import suite as engine_suite
from benchmarks.engine.model_layers import MODEL_LAYERS
from benchmarks.engine.suite import FORWARD_MAX, OPERATIONS, SMALLEST, Tensors

ROOT = Path(__file__).parents[2]
TINY = ["--only", SMALLEST.name, "--rounds", "1", "--dtype", "float32"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.engine", *TINY, "--output", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,  # kernels may have to be compiled first
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def test_rows_have_every_contender_that_supports_the_operation(results: Path) -> None:
    rows = json.loads((results / "engine-cpu.json").read_text())["rows"]
    assert [(row["layout"], row["operation"]) for row in rows] == [
        (layout, operation) for layout in engine_suite.LAYOUTS for operation in OPERATIONS
    ]
    for row in rows:
        rivals = {"torch_channels_last"} | ({"torch"} if row["layout"] == "NCHW" else set())
        if row["layout"] == "NCHW" and row["operation"].startswith("forward"):
            rivals |= {"onnxruntime", "onnxruntime_run", "onnxruntime_binding"}
        assert row["times_faster"].keys() == rivals | {"ours_allocating", "numpy"}
        assert row["times_ms"].keys() == row["times_faster"].keys() | {"ours", "floor"}
        assert row["differs"] == []


def test_the_report_has_one_table_per_operation(results: Path) -> None:
    lines = (results / "engine-cpu.md").read_text().splitlines()
    titles = [f"## {each.capitalize()}, float32 NCHW" for each in OPERATIONS]
    assert [line for line in lines if line in titles] == titles
    tables = [line.count("|") for line in lines if line.startswith("|")]
    assert len(tables) == 2 + 10 + 10 * 3


def test_the_picture_can_be_opened(results: Path) -> None:
    with Image.open(results / "engine-cpu.png") as picture:
        picture.load()
        assert picture.width == 1800


def test_contenders_with_different_results_are_listed() -> None:
    tensors = Tensors(SMALLEST, "float32", "NCHW")
    y = tensors.y
    calls = {"ours": lambda: y, "numpy": lambda: y + 1e-7, "torch": lambda: y + np.float32(1e-3)}
    calls |= {"onnxruntime_run": lambda: y[:1], "floor": lambda: None}
    assert bench_engine.differing(calls, tensors) == ["torch", "onnxruntime_run"]


@pytest.mark.parametrize(("figure", "verdict"), [(1.19, "**missed**"), (1.2, "met")])
def test_goals_for_every_layer_use_the_slowest_layer(figure: float, verdict: str) -> None:
    rows = [
        {"layer": str(each), "layout": "NCHW", "times_faster": {"onnxruntime": {"median": each}}}
        | {"input_bytes": 1}
        for each in (9.0, figure)
    ]
    judged = engine_goals.against_onnxruntime(rows, engine_goals.GOALS[FORWARD_MAX])
    assert judged.endswith(f"worst {figure:.2f} ({figure}), goal 1.2: {verdict}")


def test_layer_names_are_unique() -> None:
    layers = (*engine_suite.LAYERS, *MODEL_LAYERS)
    assert len({layer.name for layer in layers}) == len(layers)


@pytest.mark.parametrize("data", engine_suite.DATA)
def test_data_is_what_its_name_says(data: str) -> None:
    x = Tensors(SMALLEST._replace(data=data), "float32", "NCHW").x
    shares = {
        "negative zeros": np.mean((x == 0) & np.signbit(x)),
        "NaNs": np.isnan(x).mean(),
        "denormals": np.mean((x != 0) & (abs(x) < np.finfo(np.float32).tiny)),
    }
    expected = {
        "hardswish": {"negative zeros": 0.23},
        "1 % NaN": {"NaNs": 0.01},
        "denormals": {"denormals": 1},
    }
    for name, share in shares.items():
        assert share == pytest.approx(expected.get(data, {}).get(name, 0), abs=0.01)
