"""The engine benchmark: it runs, marks differing results, and judges goals; no time is asserted."""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.engine import __main__ as bench_engine
from benchmarks.engine import goals as engine_goals
from benchmarks.engine import suite as engine_suite
from benchmarks.engine.model_layers import BYTE_LAYERS, DATA_LAYERS, MODEL_LAYERS, MODELS
from benchmarks.engine.suite import (
    FORWARD_AVERAGE,
    FORWARD_MAX,
    MODEL_POOLS,
    OPERATIONS,
    SMALLEST,
    Tensors,
)

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
    assert len(tables) == 2 + len(engine_goals.GOALS) + 2 + 10 + 10 * 3


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


def fabricated(layer: str, operation: str, **more: float) -> dict[str, Any]:
    row = {"layer": layer, "operation": operation, "dtype": "float32", "layout": "NCHW"}
    row |= {"input_bytes": 2 * engine_goals.MEGABYTE, "times_faster": {}}
    for name, figure in more.items():
        target = row if name == "over_related" else row["times_faster"]
        target[name] = {"median": figure}
    return row


def verdicts(rows: list[dict[str, Any]], words: str) -> list[tuple[str, str]]:
    goals = [each for each in engine_goals.GOALS if words in each.subject]
    assert goals
    return [
        (judged.figure, judged.outcome)
        for judged in (engine_goals.judge(each, rows) for each in goals)
    ]


@pytest.mark.parametrize(("figure", "outcome"), [(0.99, "**missed**"), (1.0, "met")])
def test_goals_for_every_layer_use_the_slowest_layer(figure: float, outcome: str) -> None:
    first, second = (layer.name for layer in engine_suite.LAYERS[2:4])
    rows = [
        fabricated(first, FORWARD_MAX, onnxruntime=9),
        fabricated(second, FORWARD_MAX, onnxruntime=figure),
    ]
    shown = f"{figure:.2f} ({second}, forward max)"
    assert verdicts(rows, "forward, all layers over 1 MB") == [(shown, outcome)]
    rows[1]["input_bytes"] = engine_goals.MEGABYTE - 1
    assert verdicts(rows, "forward, all layers over 1 MB")[0][1] == "met"


@pytest.mark.parametrize(("figure", "outcome"), [(1.21, "**missed**"), (1.2, "met")])
def test_goals_for_special_data_use_the_costliest_layer(figure: float, outcome: str) -> None:
    layers = [layer.name for layer in DATA_LAYERS if layer.data == "hardswish"]
    rows = [fabricated(layer, FORWARD_MAX, over_related=1) for layer in layers[:-1]]
    rows.append(fabricated(layers[-1], FORWARD_MAX, over_related=figure))
    assert verdicts(rows, "after hardswish")[0][1] == outcome


def test_goals_without_a_row_say_so() -> None:
    judged = [engine_goals.judge(goal, []) for goal in engine_goals.GOALS]
    assert {(each.figure, each.outcome) for each in judged} == {("—", "not measured")}


def test_every_goal_has_rows_in_the_benchmark() -> None:
    arguments = argparse.Namespace(only="", dtype=None, layout=None)
    rows = [
        fabricated(layer.name, operation, onnxruntime=2, torch=2, over_related=1)
        | {"dtype": dtype, "layout": layout, "input_bytes": math.prod(layer.shape) * 4}
        for layer, dtype, layout, operations in bench_engine.cases(arguments)
        for operation in operations
    ]
    rows += [fabricated(model.name, MODEL_POOLS, onnxruntime=2) for model in MODELS]
    assert all(any(map(goal.has, rows)) for goal in engine_goals.GOALS)


def test_all_pools_of_a_model_are_one_row() -> None:
    model = MODELS[2]
    row = bench_engine.model_row(model, 1)
    assert (row["layer"], row["operation"], row["differs"]) == (model.name, MODEL_POOLS, [])
    assert {"ours", "onnxruntime", "floor"} <= row["times_ms"].keys()


def test_related_layers_and_bytes_are_compared() -> None:
    special = next(layer for layer in DATA_LAYERS if layer.network == "PP-OCR cls")
    row = bench_engine.measured_row(Tensors(special, "float32", "NCHW"), FORWARD_MAX, 1)
    assert (row["related"], row["differs"]) == (special._replace(data="normal").name, [])
    assert row["over_related"]["median"] > 0
    row = bench_engine.measured_row(Tensors(BYTE_LAYERS[2], "uint8", "NCHW"), FORWARD_AVERAGE, 1)
    assert row["differs"] == []
    assert {"onnxruntime"} < row["times_faster"].keys()


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
